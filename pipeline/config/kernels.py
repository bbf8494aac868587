"""Settings that ask for a kernel of some GPUs: what a config alone tells of whether they can work."""

from collections.abc import Iterator

from pipeline.config.problem import Problem
from pipeline.config.schema import Device, DType
from pipeline.config.sections.generation import Attention, GenerationConfig, Quantize

# The dtypes of a model in which each kernel computes; the wheel fa3-fwd is built without float16.
DTYPES: dict[Attention | Quantize, tuple[DType, ...]] = {
    Attention.flash3: (DType.bfloat16,),
    Attention.cudnn: (DType.bfloat16, DType.float16),
    Quantize.fp8: (DType.bfloat16,),
}


def asked_kernels(generation: GenerationConfig) -> Iterator[tuple[str, Attention | Quantize]]:
    """Yield key path and value of each setting that asks for a kernel of its own."""
    for key, value in (("attention", generation.attention), ("quantize", generation.quantize)):
        if value in DTYPES:
            yield f"generation.{key}", value


def check_kernels(generation: GenerationConfig, dtype: DType, device: Device) -> None:
    """Raise ``Problem`` for a kernel that a model of this *dtype* or a run on this *device* cannot use; what is "auto"
    is not known yet."""
    for key, value in asked_kernels(generation):
        if device is Device.cpu:
            raise Problem(key, f"is {value}, which needs a CUDA device, but cluster.device is cpu; leave it out")
        if dtype is not DType.auto and dtype not in DTYPES[value]:
            raise Problem(
                key, f"is {value}, which computes in {' or '.join(DTYPES[value])} alone, but model.dtype is {dtype}"
            )
