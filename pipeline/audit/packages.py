"""Weights that packages carry: found without importing the packages, as nothing else of them is used."""

import importlib.util
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError


def file_of_package(extra: str, package: str, name: str) -> Path:
    """Return the file *name* of the installed *package*. Raises ``ConfigError``, with the pip command of Lacuna's
    *extra* that brings it, where it is not installed or has no such file."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{extra} needs the package {package}, which is not installed; it comes with the extra: "
            f"`pip install -e '.[{extra}]'`"
        )
    path = Path(spec.origin).parent / name
    if not path.is_file():
        raise ConfigError(
            f"{extra}: the package {package} in {path.parent} has no file {path.name}; install the "
            f"version that the extra asks for: `pip install -e '.[{extra}]'`"
        )
    return path


def onnx_session(path: Path) -> Any:
    """Return an ``onnxruntime.InferenceSession`` of the file *path* on the CPU, in as many threads as torch has."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
