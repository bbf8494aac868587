"""Which kernel computes attention (``generation.attention``): is it here, does it compute right, and how it is chosen.

All attention of a denoiser, diffusers' own and ours, goes through torch's ``scaled_dot_product_attention``; what is
chosen is the kernel behind it. FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608) is taken from the wheel fa3-fwd:
its operator stands in for torch's own FlashAttention in torch's dispatcher, as ``torch.nn.attention`` does with builds
of FlashAttention-3 that have a backward pass. Attention with a mask, or of heads that the kernel cannot take, is left
to torch's other kernels.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, library, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from pipeline.config.kernels import asked_kernels, check_kernels
from pipeline.config.schema import Config
from pipeline.config.sections.generation import Attention, Quantize
from pipeline.errors import ConfigError
from pipeline.models.load import Model

BACKENDS = {Attention.flash3: SDPBackend.FLASH_ATTENTION, Attention.cudnn: SDPBackend.CUDNN_ATTENTION}
REST = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
AMISS = 0.02  # of the largest value: further from float32's than bfloat16 gets, by far less than a wrong kernel


@dataclass(frozen=True)
class Need:
    """What a kernel needs of a machine: a card of *least* up to *most* compute capability, and a package."""

    least: tuple[int, int]
    most: tuple[int, int] | None
    cards: str
    package: str | None = None
    module: str | None = None


NEEDS = {
    Attention.flash3: Need((9, 0), (9, 9), "Hopper GPUs (compute capability 9.0)", "fa3-fwd", "fa3_fwd_interface"),
    Attention.cudnn: Need((8, 0), None, "GPUs of compute capability 8.0 (Ampere) and more"),
    Quantize.fp8: Need((8, 9), None, "GPUs of compute capability 8.9 (Ada) and more", "torchao", "torchao"),
}


@dataclass(frozen=True)
class Card:
    """A GPU: its name, and its compute capability."""

    name: str
    capability: tuple[int, int]


def card_here(device: str) -> Card | None:
    """Return the GPU on which this process computes; None where *device* is "cpu"."""
    return None if device == "cpu" else Card(torch.cuda.get_device_name(), torch.cuda.get_device_capability())


def check_kernels_here(config: Config, device: str) -> None:
    """Raise ``ConfigError``, in one line, for what ``generation.attention`` or ``generation.quantize`` asks for and
    this machine, drawing on *device*, cannot do."""
    check_kernels(config.generation, config.model.dtype, config.cluster.device)
    for key, value in asked_kernels(config.generation):
        check_need(f"{key}: {value}", NEEDS[value], card_here(device))


def check_need(what: str, need: Need, card: Card | None) -> None:
    """Raise ``ConfigError``, beginning with *what*, where *card* or the packages here are not as it needs."""
    if card is None:
        raise ConfigError(f"{what} needs a CUDA device, and here is none; leave it out")
    if card.capability < need.least or (need.most is not None and card.capability > need.most):
        capability = ".".join(map(str, card.capability))
        raise ConfigError(f"{what} is for {need.cards}, and {card.name} has {capability}; leave it out")
    if need.module is not None and importlib.util.find_spec(need.module) is None:
        raise ConfigError(
            f"{what} needs the package {need.package}, which is not installed: `pip install {need.package}`"
        )


def attention_kernel(attention: Attention) -> AbstractContextManager[Any]:
    """While inside, attention without a mask is computed by this kernel, as far as it can."""
    if attention not in BACKENDS:
        return nullcontext()
    return sdpa_kernel([BACKENDS[attention], *REST], set_priority=True)


def install_attention(attention: Attention, model: Model) -> None:
    """Make the kernel ready for this process, and try it on heads as *model* has them.

    Raises ``ConfigError`` where it cannot be loaded, does not take such heads, or computes something else.
    """
    if attention not in BACKENDS:
        return
    if attention is Attention.flash3:
        _install_flash3()
    for width in sorted(set(head_widths(model.family.denoiser))):
        try_kernel(attention, BACKENDS[attention], width, model.device, model.dtype)


def head_widths(denoiser: nn.Module) -> Iterator[int]:
    """Yield the number of features of a head, for every attention layer."""
    for module in denoiser.modules():
        query, heads = getattr(module, "to_q", None), getattr(module, "heads", None)
        if isinstance(query, nn.Linear) and isinstance(heads, int):
            yield query.out_features // heads


def try_kernel(attention: Attention, backend: SDPBackend, width: int, device: torch.device, dtype: torch.dtype) -> None:
    """Raise ``ConfigError`` where this kernel alone does not compute attention of heads of *width* features."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 2, 256, width, generator=generator).to(dtype) for _ in range(3)]
    query, key, value = (part.float() for part in parts)
    expected = scaled_dot_product_attention(query, key, value)
    query, key, value = (part.to(device) for part in parts)
    try:
        with sdpa_kernel(backend):
            found = scaled_dot_product_attention(query, key, value)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"generation.attention: {attention} does not compute heads of {width} features in {dtype} here "
            f"({reason[:200]}); leave it out"
        ) from error
    off = float((found.float().cpu() - expected).abs().max() / expected.abs().max())
    if not off <= AMISS:  # NaN is not
        raise ConfigError(
            f"generation.attention: {attention} is off by {off:.0%} here, with heads of {width} features; leave it out"
        )


@functools.cache
def _install_flash3() -> library.Library:
    """Register the wheel's kernel with torch's dispatcher, for as long as this process lives."""
    need = NEEDS[Attention.flash3]
    try:
        import fa3_fwd_interface  # noqa: F401  # registers its operators

        kernel = torch.ops.fa3_fwd.fwd
    except (ImportError, OSError, AttributeError) as error:  # a wheel that was built for another torch
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"generation.attention: flash3 cannot be loaded from {need.package} with torch {torch.__version__} "
            f"({reason[:200]}); leave it out, or install a build for this torch"
        ) from error
    registered = library.Library("aten", "IMPL", "CUDA")

    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        return_debug_mask: bool = False,
        *,
        scale: float | None = None,
    ) -> tuple[Any, ...]:
        return flash3(kernel, query, key, value, is_causal=is_causal, scale=scale)

    registered.impl("_scaled_dot_product_flash_attention", forward)
    return registered


def flash3(
    kernel: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool, scale: float | None
) -> tuple[Any, ...]:
    """Answer ``aten::_scaled_dot_product_flash_attention`` for ``(B, heads, N, d)`` by FlashAttention-3's operator, to
    which sequences come before heads. The output lies in memory as the query does, as torch's compiler expects."""
    output = torch.empty_like(query)
    parts = [part.transpose(1, 2) for part in (query, key, value)]
    rows = [part if part.stride(-1) == 1 else part.contiguous() for part in parts]
    # In one split of the keys: how many it would choose by itself depends on how many multiprocessors are free.
    _, sums, *_ = kernel(*rows, out=output.transpose(1, 2), softmax_scale=scale, is_causal=is_causal, num_splits=1)
    seeds = query.new_zeros(2, dtype=torch.uint64), query.new_zeros((), dtype=torch.uint64)
    return output, sums, None, None, query.shape[2], key.shape[2], *seeds, query.new_empty(0)
