"""May a layer of attention be given a processor of ours? Only where nothing that it does would be left out."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.layers import Layer

# What diffusers' processors of cross-attention do where a layer has it, and ours do not.
_FURTHER = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k", "add_k_proj")


def check_cross_attention(name: str, attn: Any) -> None:
    """Raise ``ConfigError``, beginning with *name*, for a layer that does more than ``TextAttention``."""
    check_processor(name, attn, ("AttnProcessor", "AttnProcessor2_0", "TextAttention"))
    found = [part for part in _FURTHER if getattr(attn, part, None) is not None]
    found += ["residual_connection"] * attn.residual_connection
    found += ["rescale_output_factor"] * (attn.rescale_output_factor != 1)
    if found:
        raise ConfigError(f"{name} has {', '.join(found)}, which cannot be steered")


def check_processor(name: str, attn: Any, expected: Sequence[str]) -> None:
    """Raise ``ConfigError``, beginning with *name*, where the layer's processor is of none of the *expected* classes:
    something else, such as an IP adapter, has opened it already."""
    processor = type(attn.processor).__name__
    if processor not in expected:
        raise ConfigError(
            f"{name} has a processor of its own, {processor}, whose part would be lost; load the model without it"
        )


def check_unmasked(layer: Layer, mask: Tensor | None) -> None:
    """Raise ``ConfigError`` for a *mask* of tokens in a *layer* of joint attention.

    The pipelines of SD3 and FLUX pass none: those models were trained with attention to the padding. One that did would
    mask text and image as one sequence, in an order of its own, of which ``Conditioning.mask`` tells nothing; what
    ``cease_joint`` carries beside the batch's own text would attend to what is masked, and no picture would show it.
    """
    if mask is not None:
        raise ConfigError(f"{layer.name} masks tokens, which is not supported in joint attention")
