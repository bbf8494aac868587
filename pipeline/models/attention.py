"""Attention to text, opened at two places: its keys and values, and its output before the last projection.

Several steerings act one after another at each place, so they stack. Keys and values depend on the prompt alone (true
of cross-attention, not of joint attention), so they are computed, and changed, once per batch instead of once per step.
Without steerings the result is that of diffusers' own processor bit for bit, masks included; what that one does besides
is refused (``replaceable.py``). Knows nothing of concepts or of gates.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pipeline.errors import ConfigError
from pipeline.models.layers import QKV, JointLayer, Layer, merge_heads, split_heads
from pipeline.models.replaceable import check_cross_attention


class AttentionSteering(Protocol):
    """What may act inside attention. Rows are those of the denoiser's batch: all negatives, then all positives."""

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Change keys and values ``(R, heads, T, d)``; called once per batch and layer, and again after ``forget``."""

    def blend(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        """Change the output ``(R, heads, N, d)`` for queries ``(R, heads, N, d)``; called at every step."""


class JointSteering(Protocol):
    """What may act inside joint attention. Rows are those of the denoiser's batch: negatives, then positives."""

    def joint(self, layer: JointLayer, image: QKV, text: QKV, output: Tensor) -> Tensor:
        """Change what the image gets, ``output (R, heads, N, d)``; called at every step and layer."""


class AttentionState:
    """What the processors of one model share: who steers now, and the keys and values of the batch at hand."""

    def __init__(self) -> None:
        self.text_steerings: Sequence[AttentionSteering] = ()
        self.blend_steerings: Sequence[AttentionSteering] = ()
        self.joint_steerings: Sequence[JointSteering] = ()
        self.reached: set[str] = set()  # which hooks a forward of this batch has come to: text, blend, joint
        self.masked = False  # do the steerings know which tokens of the batch are masked?
        self.running: Tensor | None = None  # the embeddings that a transformer with joint attention runs on now
        self._source: Tensor | None = None
        self._keys_values: dict[int, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def batch(
        self,
        embeds: Tensor,
        text: Sequence[AttentionSteering],
        blend: Sequence[AttentionSteering],
        joint: Sequence[JointSteering] = (),
        masked: bool = False,
    ) -> Iterator[None]:
        """While inside, forwards on the very tensor *embeds* are steered and share their keys and values.

        A forward on any other embeddings (a further branch of some method) runs unsteered. ``masked`` says that the
        steerings were told of the mask (``Conditioning.mask``).
        """
        self.masked, self.reached = masked, set()
        self._source, self.text_steerings, self.blend_steerings, self.joint_steerings = embeds, text, blend, joint
        try:
            yield
        finally:
            self._source, self.text_steerings, self.blend_steerings, self.joint_steerings = None, (), (), ()
            self.forget()

    def steers(self, embeds: Tensor) -> bool:
        return embeds is self._source

    def forget(self) -> None:
        """Have keys and values made, and steered, anew at the next forward."""
        self._keys_values.clear()

    def joint_now(self) -> Sequence[JointSteering]:
        """Return who acts in the forward that runs now, which is told by ``running``."""
        if self.running is not self._source:
            return ()
        self.reached.add("joint")
        return self.joint_steerings

    def keys_values(self, layer: Layer, attn: Any, embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values ``(R, heads, T, d)`` of *embeds*, steered if they are the batch's own."""
        if not self.steers(embeds):
            return split_heads(attn.to_k(embeds), layer.heads), split_heads(attn.to_v(embeds), layer.heads)
        self.reached |= {"text", "blend"}
        if layer.index not in self._keys_values:
            key, value = split_heads(attn.to_k(embeds), layer.heads), split_heads(attn.to_v(embeds), layer.heads)
            for steering in self.text_steerings:
                key, value = steering.text(layer, key, value)
            self._keys_values[layer.index] = key, value
        return self._keys_values[layer.index]


class CrossAttentionProcessor:
    """Replaces diffusers' ``AttnProcessor2_0`` in one cross-attention layer of a UNet."""

    def __init__(self, layer: Layer, state: AttentionState):
        """Raise ``ConfigError`` for a layer of which it would leave something out."""
        check_cross_attention(layer.name, layer.module)
        self.layer = layer
        self.state = state

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
        layer, state = self.layer, self.state
        rows, tokens, _ = encoder_hidden_states.shape
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, tokens, rows)
            attention_mask = attention_mask.view(rows, layer.heads, -1, attention_mask.shape[-1])
        query = split_heads(attn.to_q(hidden_states), layer.heads)  # (R, heads, N, d)
        key, value = state.keys_values(layer, attn, encoder_hidden_states)
        output = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        if state.blend_steerings and state.steers(encoder_hidden_states):
            if attention_mask is not None and not state.masked:
                raise ConfigError(
                    f"{layer.name} masks tokens of the text, and its family does not say which (Conditioning.mask): "
                    "what acts on its output would act on others too"
                )
            for steering in state.blend_steerings:
                output = steering.blend(layer, query, output)
        projected: Tensor = attn.to_out[1](attn.to_out[0](merge_heads(output)))
        return projected
