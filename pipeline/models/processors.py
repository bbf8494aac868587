"""The processor of all layers of a UNet that hear text, and what processors do where erasure acts in a forward.

How they come by what they work on, and in which modes they run, is told in ``attention.py``.
"""

from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn, stack
from torch.nn.functional import scaled_dot_product_attention

from pipeline.errors import ConfigError, check_given, named_in_errors
from pipeline.models.attention import Heard, projected
from pipeline.models.layers import QKV, JointLayer, merge_heads, split_heads
from pipeline.models.switching import Mode, attention_to


class TextAttention:
    """Replaces diffusers' ``AttnProcessor2_0`` in the layers of a UNet that hear text. There is one, ``TEXT``."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Map hidden states ``(R, N, C)`` to the same shape, attending to ``encoder_hidden_states (R, T, D)``.

        ``attention_mask (R, 1, T)`` is added to the logits. Raises ``ConfigError`` where a steering would act on what
        is masked and does not know it. ``temb`` is for a normalisation that ``check_cross_attention`` refuses.
        """
        heard, state = attn.heard, attn.heard.state
        rows, tokens, _ = encoder_hidden_states.shape
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, tokens, rows)
            attention_mask = attention_mask.view(rows, attn.heads, -1, attention_mask.shape[-1])
        query = split_heads(attn.to_q(hidden_states), attn.heads)  # (R, heads, N, d)
        if state.mode is Mode.given:
            key, value = projected(attn, encoder_hidden_states)
        else:
            key, value = heard.key, heard.value
        output = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        if state.steered and attention_mask is not None and not state.masked:
            raise ConfigError(
                f"{heard.layer.name} masks tokens of the text, and its family does not say which "
                "(Conditioning.mask): what acts on its output would act on others too"
            )
        merged = crossed(heard, query, output) if state.steered else merge_heads(output)
        projection: Tensor = attn.to_out[1](attn.to_out[0](merged))
        return projection


TEXT = TextAttention()
_SELF = AttnProcessor2_0()


def share_self_attention(denoiser: nn.Module) -> None:
    """Give all layers that have diffusers' ``AttnProcessor2_0`` the same object of it: compiled code is made anew for
    each object, as diffusers asks the processor that a layer has for its signature."""
    for module in denoiser.modules():
        if isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0:
            module.set_processor(_SELF)


def crossed(heard: Heard, query: Tensor, output: Tensor) -> Tensor:
    """Return, ``(R, N, heads * d)``, what is made of the output of one layer of cross-attention, ``(R, heads, N, d)``
    as the query is; it is written over."""
    state, positions, maps = heard.state, query.shape[2], []
    for steering in state.blends:
        with named_in_errors(steering.where):
            output = steering.blend(heard.layer, query, output)
            check_given("blend", output, Tensor, "a tensor")
    merged = merge_heads(output)  # as it lies in memory, and is read next: compiled code would turn it about twice
    for switching, other in zip(state.switchings, heard.others, strict=True):
        first = query.shape[0] - other.key.shape[0]
        positives = query[first:]
        if switching.gathers and positions <= switching.most:
            own = attention_to(positives, other.own, switching.own_marks, switching.own_mask)
            maps.append(stack([own, attention_to(positives, other.key, switching.marks, switching.mask)]))
        switched = scaled_dot_product_attention(positives, other.key, other.value, attn_mask=switching.mask)
        merged[first:].lerp_(merge_heads(switched), switching.weights[positions])
    if maps:
        heard.maps = maps
    return merged


def joined(heard: Heard, image: QKV, text: QKV, seen: Tensor) -> None:
    """Make of what the image tokens of one layer of joint attention get, ``(R, N, heads * d)``, what is to be made of
    it; it is written over."""
    state, layer, maps = heard.state, heard.layer, []
    assert isinstance(layer, JointLayer)
    for steering in state.joints:
        with named_in_errors(steering.where):
            given = steering.joint(layer, image, text, split_heads(seen, layer.heads))
            check_given("joint", given, Tensor, "a tensor")
            seen.copy_(merge_heads(given))
    for carrying, watched in zip(state.carryings, heard.watched, strict=True):
        first = seen.shape[0] - carrying.own_marks.shape[0]
        own = image.rows(slice(first, None))
        if carrying.gathers and watched:
            few = slice(None, None, max(1, layer.heads // carrying.heads))
            maps.append(attention_to(own.query[:, few], text.key[first:, few], carrying.own_marks)[None])
        if carrying.switches:
            assert carrying.entered is not None
            switched, carrying.entered = layer.follow(carrying.entered, own)
            seen[first:].lerp_(merge_heads(switched), carrying.weights[seen.shape[1]])
    if maps:
        heard.maps = maps
