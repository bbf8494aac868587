"""What bytes depend on besides the config: recorded with every commit, compared on every resume."""

import platform
from importlib import import_module
from importlib.metadata import version
from typing import Any

import diffusers
import torch
import transformers

from pipeline.config.kernels import asked_kernels
from pipeline.config.sections.generation import Compile, GenerationConfig
from pipeline.models.compiling import cxx
from pipeline.models.dtype import has_bf16
from pipeline.models.kernels import NEEDS


def environment(device: str, threads: int, generation: GenerationConfig | None = None) -> dict[str, Any]:
    """Return the environment of this process. Bytes are promised within one such environment.

    Threads and CPU capability change the order of sums on a CPU; on a GPU its model and CUDA's version do; where
    *generation* has anything compiled, the compiler does, and the packages do whose kernels it asks for.
    """
    values: dict[str, Any] = {
        "device": device,
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }
    if generation is not None and generation.compile is not Compile.none:
        values["compiler"] = f"inductor, {cxx() if device == 'cpu' else f'Triton {_triton()}'}"
    if device == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        return values | {"cpu_capability": capability, "cpu_bf16": has_bf16(), "threads": threads}
    asked = [] if generation is None else [value for _, value in asked_kernels(generation)]
    packages = [package for value in asked if (package := NEEDS[value].package)]
    kernels = {package: version(package) for package in packages}
    return values | {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} | kernels


def _triton() -> str:
    return str(import_module("triton").__version__)  # it comes with torch, where that is for GPUs
