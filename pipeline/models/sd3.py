"""Stable Diffusion 3 and 3.5: two CLIP encoders and T5, text and image in joint attention, a flow predicted.

The text is two streams one after another: CLIP's tokens (both encoders' features side by side, zeros up to T5's width),
then T5's. A checkpoint without T5, which is the largest part by far, gets zeros in its place, as in diffusers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from pipeline.models.attention import AttentionState, Heard
from pipeline.models.encoders import clip_pooled, clip_tokens_and_pooled, t5_tokens, token_ids
from pipeline.models.family import Conditioning, TextStream, check_sides
from pipeline.models.flow import shifted_timesteps
from pipeline.models.joint import JointFamily
from pipeline.models.layers import QKV, EnteredText, JointLayer, Layer, merge_heads, split_heads
from pipeline.models.processors import joined
from pipeline.models.replaceable import check_processor, check_unmasked

T5_LENGTH = 256  # tokens that T5 reads of a prompt, the length it was trained with


class StableDiffusion3(JointFamily):
    """``StableDiffusion3Pipeline``: SD 3 and 3.5, medium and large."""

    name = "Stable Diffusion 3"
    offers = frozenset({"text_projections", "joint_attention", "guidance"})
    repeated = ("JointTransformerBlock",)
    summary_networks = ("text_encoder", "text_encoder_2")

    @classmethod
    def joints(cls, pipe: Any) -> dict[str, tuple[Any, Any]]:
        transformer, clips = pipe.transformer.config, (pipe.text_encoder.config, pipe.text_encoder_2.config)
        pooled = sum(clip.projection_dim for clip in clips)
        joints = {
            "transformer's pooled_projection_dim": (transformer.get("pooled_projection_dim"), pooled),
            "transformer's in_channels": (transformer.get("in_channels"), pipe.vae.config.get("latent_channels")),
        }
        if pipe.text_encoder_3 is not None:
            width = (transformer.get("joint_attention_dim"), pipe.text_encoder_3.config.hidden_size)
            joints["transformer's joint_attention_dim"] = width
        return joints

    @property
    def streams(self) -> tuple[TextStream, ...]:
        clip, t5 = self.pipe.tokenizer, self.pipe.tokenizer_3
        first = TextStream(clip, offset=0, length=clip.model_max_length, causal=True)
        if self.pipe.text_encoder_3 is None:
            return (first,)
        return first, TextStream(t5, offset=first.length, length=self._t5_length, causal=False)

    @property
    def _t5_length(self) -> int:
        tokenizer = self.pipe.tokenizer_3
        return T5_LENGTH if tokenizer is None else min(T5_LENGTH, tokenizer.model_max_length)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Conditioning:
        pipe, length = self.pipe, self.pipe.tokenizer.model_max_length
        ids, ids_2 = (token_ids(t, texts, length, self.device) for t in (pipe.tokenizer, pipe.tokenizer_2))
        first, pooled = clip_tokens_and_pooled(pipe.text_encoder, ids)
        second, pooled_2 = clip_tokens_and_pooled(pipe.text_encoder_2, ids_2)
        clip = torch.cat([first, second], dim=-1)
        width = pipe.transformer.config.joint_attention_dim
        if pipe.text_encoder_3 is None:
            t5 = clip.new_zeros((len(texts), self._t5_length, width))
        else:
            t5 = t5_tokens(pipe.tokenizer_3, pipe.text_encoder_3, texts, self._t5_length, self.device)
        embeds = torch.cat([pad(clip, (0, width - clip.shape[-1])).to(self.dtype), t5.to(self.dtype)], dim=1)
        return Conditioning(embeds, torch.cat([pooled, pooled_2], dim=-1).to(self.dtype))

    @torch.no_grad()
    def summaries(self, texts: Sequence[str]) -> Tensor:
        pipe = self.pipe
        clips = (pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)
        return torch.cat([clip_pooled(*clip, texts, self.device) for clip in clips], dim=-1).to(self.dtype)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        config = self.pipe.transformer.config
        factor = 2 ** (len(self.pipe.vae.config.block_out_channels) - 1)
        multiple = factor * config.patch_size
        check_sides(width, height, multiple, multiple, "VAE and patches", config.pos_embed_max_size * multiple)
        return config.in_channels, height // factor, width // factor

    def set_timesteps(self, scheduler: Any, steps: int, width: int, height: int) -> Tensor:
        _, h, w = self.latent_shape(width, height)
        patch = self.pipe.transformer.config.patch_size
        return shifted_timesteps(scheduler, steps, (h // patch) * (w // patch), 1.16)

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        predicted: Tensor = self.pipe.transformer(
            hidden_states=latents,
            timestep=timestep.expand(len(latents)),
            encoder_hidden_states=conditioning.embeds,
            pooled_projections=conditioning.pooled,
            return_dict=False,
        )[0]
        return predicted

    @property
    def depth(self) -> int:
        return len(self.pipe.transformer.transformer_blocks)

    def attach(self, state: AttentionState) -> list[Layer]:
        layers: list[Layer] = []
        for i, block in enumerate(self.pipe.transformer.transformer_blocks):
            layer = SD3Layer(f"transformer.transformer_blocks.{i}.attn", i, block.attn.heads, block.attn, block)
            check_processor(layer.name, layer.module, ("JointAttnProcessor2_0", "SD3Attention"))
            layers.append(layer)
        for block in self.pipe.transformer.transformer_blocks:
            block.attn.set_processor(_JOINT)
            if block.attn2 is not None and type(block.attn2.processor) is JointAttnProcessor2_0:
                block.attn2.set_processor(_IMAGE)
        state.open(layers)
        return layers

    def enter(self, conditioning: Conditioning, timestep: Tensor, guidance: float) -> EnteredText:
        transformer = self.pipe.transformer
        condition = transformer.time_text_embed(timestep.expand(len(conditioning)), conditioning.pooled)
        return EnteredText(transformer.context_embedder(conditioning.embeds), condition)


class SD3Layer(JointLayer):
    """The attention of a ``JointTransformerBlock``. The last one forgets its text."""

    text_first = False

    def image(self, hidden: Tensor) -> QKV:
        attn = self.module
        query, key, value = (split_heads(x(hidden), self.heads) for x in (attn.to_q, attn.to_k, attn.to_v))
        return QKV(_normed(attn.norm_q, query), _normed(attn.norm_k, key), value)

    def attend(self, tokens: QKV) -> Tensor:
        return scaled_dot_product_attention(tokens.query, tokens.key, tokens.value)

    def text(self, hidden: Tensor) -> QKV:
        attn = self.module
        query, key, value = (
            split_heads(x(hidden), self.heads) for x in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        )
        return QKV(_normed(attn.norm_added_q, query), _normed(attn.norm_added_k, key), value)

    def follow(self, text: EnteredText, image: QKV) -> tuple[Tensor, EnteredText]:
        block, tokens, condition = self.block, text.tokens, text.condition
        if block.context_pre_only:
            output, _ = self.meet(self.text(block.norm1_context(tokens, condition)), image)
            return output, text
        normed, gate, shift, scale, gate_ff = block.norm1_context(tokens, emb=condition)
        output, heard = self.meet(self.text(normed), image)
        tokens = tokens + gate[:, None] * self.module.to_add_out(heard)
        normed = block.norm2_context(tokens) * (1 + scale[:, None]) + shift[:, None]
        return output, EnteredText(tokens + gate_ff[:, None] * block.ff_context(normed), condition)


class SD3Attention(JointAttnProcessor2_0):  # type: ignore[misc]
    """Is diffusers' processor of joint attention where nothing acts in a forward; one object for all layers."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Map image tokens ``(R, N, C)`` and text tokens ``(R, T, C)`` to the same shapes, attending to both.

        Raises ``ConfigError`` where tokens are masked.
        """
        heard: Heard = attn.heard
        check_unmasked(heard.layer, attention_mask)
        if not heard.state.steered:
            plain: tuple[Tensor, Tensor] = super().__call__(attn, hidden_states, encoder_hidden_states)
            return plain
        layer = heard.layer
        assert isinstance(layer, SD3Layer)
        image, text = layer.image(hidden_states), layer.text(encoder_hidden_states)
        # Both as one, as diffusers has it: torch rounds once or twice according to how the rows of a product lie.
        seen, told = merge_heads(layer.attend(image.before(text))).tensor_split([hidden_states.shape[1]], dim=1)
        joined(heard, image, text, seen)
        if not attn.context_pre_only:
            told = attn.to_add_out(told)
        return attn.to_out[1](attn.to_out[0](seen)), told


_JOINT = SD3Attention()
_IMAGE = JointAttnProcessor2_0()  # of SD 3.5's further layers, in which the image attends to itself


def _normed(norm: Any, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)
