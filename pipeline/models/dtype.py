"""``model.dtype: auto``: the floating-point type in which the device at hand computes fast without losing pictures.

Settled before the identity of a corpus is computed, since it changes bytes; the run record then has what was chosen.
Imports torch only where a GPU may be at hand.
"""

import platform
from dataclasses import replace
from pathlib import Path

from pipeline.config.schema import Config, Device, DType

# Flags of /proc/cpuinfo that stand for bf16 arithmetic: x86's AVX512-BF16 and AMX, and Arm's BF16. Without them torch
# computes bf16 all the same, in emulation, many times slower than float32.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def settle_dtype(config: Config, device: str | None = None) -> Config:
    """Return *config* with ``auto`` replaced by what is fast on *device*: "cuda", "cpu", or the one found here."""
    if config.model.dtype is not DType.auto:
        return config
    return with_dtype(config, fast_dtype(device or kind_here(config.cluster.device)))


def with_dtype(config: Config, dtype: DType) -> Config:
    """Return *config* with this ``model.dtype``."""
    return replace(config, model=replace(config.model, dtype=dtype))


def fast_dtype(device: str) -> DType:
    """Return what the device of that kind on this machine does fast; a GPU that is not here is taken for a recent one.

    bfloat16 has float32's range, in which no model overflows as some do in float16; GPUs before Ampere (2020) do only
    the latter fast.
    """
    if device == "cpu":
        return DType.bfloat16 if has_bf16() else DType.float32
    import torch

    recent = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return DType.bfloat16 if recent else DType.float16


def has_bf16(cpuinfo: str | None = None) -> bool:
    """Has this machine's CPU (or the one that *cpuinfo* describes) bf16 arithmetic? False where it does not say."""
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text() if platform.system() == "Linux" and path.exists() else ""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not BF16_FLAGS.isdisjoint(value.split())
    return False


def kind_here(device: Device) -> str:
    """Return "cuda" or "cpu": what ``cluster.device`` comes to on this machine."""
    if device is not Device.auto:
        return device.value
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
