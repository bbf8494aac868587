"""What bytes depend on besides the config: recorded with every commit, compared on every resume."""

import platform
from importlib import import_module
from typing import Any

import diffusers
import torch
import transformers

from pipeline.config.schema import Compile
from pipeline.models.compiling import cxx
from pipeline.models.dtype import has_bf16


def environment(device: str, threads: int, compile: Compile = Compile.none) -> dict[str, Any]:
    """Return the environment of this process. Bytes are promised within one such environment.

    Threads and CPU capability change the order of sums on a CPU; on a GPU its model and CUDA's version do; where
    anything is compiled, the compiler does.
    """
    values: dict[str, Any] = {
        "device": device,
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }
    if compile is not Compile.none:
        values["compiler"] = f"inductor, {cxx() if device == 'cpu' else f'Triton {_triton()}'}"
    if device == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        return values | {"cpu_capability": capability, "cpu_bf16": has_bf16(), "threads": threads}
    return values | {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


def _triton() -> str:
    return str(import_module("triton").__version__)  # it comes with torch, where that is for GPUs
