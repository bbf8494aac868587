"""`model.dtype: auto` becomes what the device does fast, before anything is named after it."""

from dataclasses import replace

import pytest
import torch

from pipeline.config import identity
from pipeline.config.schema import Device, DType
from pipeline.models.dtype import fast_dtype, has_bf16, settle_dtype, with_dtype
from pipeline.models.load import DTYPES, load_model
from tests import tiny

ZEN3 = "model name\t: AMD EPYC 7763\nflags\t\t: fpu sse2 avx avx2 fma\n"
SAPPHIRE = "flags\t\t: fpu avx512f avx512_bf16 amx_tile amx_bf16\n"
GRAVITON3 = "Features\t: fp asimd sve bf16 i8mm\n"


@pytest.mark.parametrize(("cpuinfo", "found"), [(ZEN3, False), (SAPPHIRE, True), (GRAVITON3, True), ("", False)])
def test_bf16_arithmetic_is_read_from_the_cpus_flags(cpuinfo, found):
    assert has_bf16(cpuinfo) is found


def test_every_dtype_but_auto_can_be_loaded():
    assert set(DTYPES) == set(DType) - {DType.auto}


def test_auto_is_settled_by_the_device_and_what_is_named_stays():
    config = with_dtype(tiny.config("model"), DType.auto)
    config.cluster.device = Device.cpu
    assert settle_dtype(config).model.dtype is fast_dtype("cpu")
    assert fast_dtype("cpu") is (DType.bfloat16 if has_bf16() else DType.float32)
    named = with_dtype(config, DType.float16)
    assert settle_dtype(named) == named
    if not torch.cuda.is_available():
        assert fast_dtype("cuda") is DType.bfloat16  # of a GPU that is elsewhere


def test_no_corpus_is_named_after_auto():
    config = with_dtype(tiny.config("model"), DType.auto)
    with pytest.raises(ValueError, match="settle it first"):
        identity(config, "source")
    assert identity(settle_dtype(config), "source").fields["model.dtype"] in set(DTYPES)


def test_a_model_loads_in_what_auto_stands_for():
    config = replace(tiny.config(tiny.path()).model, dtype=DType.auto)
    assert load_model(config, torch.device("cpu")).dtype is DTYPES[fast_dtype("cpu")]
