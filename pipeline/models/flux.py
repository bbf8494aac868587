"""FLUX.1: T5 tokens and one pooled CLIP vector, joint attention in double and single blocks, a flow predicted.

Latents are packed: 2x2 of them are one token, which happens inside ``predict``, so that the rest of Lacuna sees
``(B, C, h, w)``. In a double block text and image have weights of their own, in a single block they share them.
Guidance is distilled into the model (dev) or absent (schnell): there is no negative branch, and no batch is doubled.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from torch import Tensor

from pipeline.models.attention import AttentionState, Heard
from pipeline.models.encoders import clip_pooled, t5_tokens, token_ids
from pipeline.models.family import Conditioning, TextStream, check_sides
from pipeline.models.flow import shifted_timesteps
from pipeline.models.joint import JointFamily
from pipeline.models.layers import QKV, EnteredText, JointLayer, Layer, merge_heads
from pipeline.models.processors import joined
from pipeline.models.replaceable import check_processor, check_unmasked

LARGEST_HALF = 65504  # of float16; like diffusers, half-precision tokens are kept within


class Flux(JointFamily):
    """``FluxPipeline``: FLUX.1 dev and schnell."""

    name = "FLUX.1"
    offers = frozenset({"text_projections", "joint_attention"})
    lacks: ClassVar[dict[str, str]] = {
        **JointFamily.lacks,
        "guidance": "its guidance is distilled into the weights, so there is no negative branch to steer",
    }

    summary_networks = ("text_encoder",)

    def __init__(self, pipe: Any, device: torch.device):
        super().__init__(pipe, device)
        self.processor = FluxAttention()  # of all layers; which backend attends is written on it

    @classmethod
    def joints(cls, pipe: Any) -> dict[str, tuple[Any, Any]]:
        transformer, channels = pipe.transformer.config, pipe.vae.config.get("latent_channels")
        wanted = {
            "joint_attention_dim": pipe.text_encoder_2.config.hidden_size,
            "pooled_projection_dim": pipe.text_encoder.config.hidden_size,
            "in_channels": channels and 4 * channels,  # 2x2 latents are one token
        }
        return {f"transformer's {name}": (transformer.get(name), value) for name, value in wanted.items()}

    @property
    def streams(self) -> tuple[TextStream, ...]:
        # schnell was distilled with 256 tokens of text, dev reads 512.
        length = 512 if self.pipe.transformer.config.guidance_embeds else 256
        tokenizer = self.pipe.tokenizer_2
        return (TextStream(tokenizer, offset=0, length=min(length, tokenizer.model_max_length), causal=False),)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Conditioning:
        pipe, (stream,) = self.pipe, self.streams
        ids = token_ids(pipe.tokenizer, texts, pipe.tokenizer.model_max_length, self.device)
        pooled = pipe.text_encoder(ids).pooler_output
        embeds = t5_tokens(stream.tokenizer, pipe.text_encoder_2, texts, stream.length, self.device)
        return Conditioning(embeds.to(self.dtype), pooled.to(self.dtype))

    @torch.no_grad()
    def summaries(self, texts: Sequence[str]) -> Tensor:
        return clip_pooled(self.pipe.tokenizer, self.pipe.text_encoder, texts, self.device).to(self.dtype)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        factor = 2 ** (len(self.pipe.vae.config.block_out_channels) - 1)
        check_sides(width, height, 2 * factor, 2 * factor, "VAE and packing")
        return self.pipe.transformer.config.in_channels // 4, height // factor, width // factor

    def set_timesteps(self, scheduler: Any, steps: int, width: int, height: int) -> Tensor:
        _, h, w = self.latent_shape(width, height)
        sigmas = torch.linspace(1, 1 / steps, steps, dtype=torch.float64).tolist()
        return shifted_timesteps(scheduler, steps, (h // 2) * (w // 2), 1.15, sigmas)

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        rows, channels, h, w = latents.shape
        packed = latents.view(rows, channels, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        packed = packed.reshape(rows, (h // 2) * (w // 2), channels * 4)
        predicted: Tensor = self.pipe.transformer(
            hidden_states=packed,
            timestep=timestep.expand(rows).to(latents.dtype) / 1000,
            guidance=self._guidance(rows, guidance),
            pooled_projections=conditioning.pooled,
            encoder_hidden_states=conditioning.embeds,
            txt_ids=torch.zeros((conditioning.embeds.shape[1], 3), device=latents.device, dtype=latents.dtype),
            img_ids=_places(h // 2, w // 2, latents),
            return_dict=False,
        )[0]
        unpacked = predicted.view(rows, h // 2, w // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return unpacked.reshape(rows, channels, h, w)

    def _guidance(self, rows: int, guidance: float) -> Tensor | None:
        if not self.pipe.transformer.config.guidance_embeds:
            return None
        return torch.full((rows,), guidance, device=self.device, dtype=torch.float32)

    @property
    def depth(self) -> int:
        transformer = self.pipe.transformer
        return len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)

    def attach(self, state: AttentionState) -> list[Layer]:
        transformer = self.pipe.transformer
        layers: list[Layer] = []
        for kind, name in ((DoubleLayer, "transformer_blocks"), (SingleLayer, "single_transformer_blocks")):
            for i, block in enumerate(getattr(transformer, name)):
                attn = block.attn
                layer = kind(f"transformer.{name}.{i}.attn", len(layers), attn.heads, attn, block)
                check_processor(layer.name, attn, ("FluxAttnProcessor", "FluxAttention"))
                layers.append(layer)
        for opened in layers:
            opened.module.set_processor(self.processor)
        state.open(layers)
        return layers

    def enter(self, conditioning: Conditioning, timestep: Tensor, guidance: float) -> EnteredText:
        transformer, rows = self.pipe.transformer, len(conditioning)
        dtype = conditioning.embeds.dtype
        times = [(timestep.expand(rows).to(dtype) / 1000) * 1000]
        distilled = self._guidance(rows, guidance)
        if distilled is not None:
            times.append(distilled.to(dtype) * 1000)
        condition = transformer.time_text_embed(*times, conditioning.pooled)
        return EnteredText(transformer.context_embedder(conditioning.embeds), condition)


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """Return the position ``(0, y, x)`` of each image token, ``(height * width, 3)``."""
    y = torch.arange(height, device=like.device, dtype=like.dtype).repeat_interleave(width)
    x = torch.arange(width, device=like.device, dtype=like.dtype).repeat(height)
    return torch.stack([torch.zeros_like(x), y, x], dim=-1)


class FluxLayer(JointLayer):
    """What double and single layers share. Text tokens have no position, so they are never rotated."""

    text_first = True

    def _qkv(self, hidden: Tensor, projections: Sequence[Any], norms: Sequence[Any]) -> QKV:
        query, key, value = (p(hidden).unflatten(-1, (self.heads, -1)) for p in projections)
        return QKV(norms[0](query).transpose(1, 2), norms[1](key).transpose(1, 2), value.transpose(1, 2))

    def attend(self, tokens: QKV) -> Tensor:
        # diffusers has the heads behind the tokens, and a backend of its own choice.
        query, key, value = (x.transpose(1, 2) for x in (tokens.query, tokens.key, tokens.value))
        backend = self.module.processor._attention_backend
        output: Tensor = dispatch_attention_fn(query, key, value, backend=backend)
        return output.transpose(1, 2)

    def tokens(self, hidden: Tensor, text: Tensor | None, rotation: tuple[Tensor, Tensor]) -> QKV:
        """Return those of all tokens, of the text first, by the steps of diffusers' own processor: other products sum,
        and other compiled code rounds, in other places. *text* is None where *hidden* has it."""
        attn = self.module
        query, key, value = (p(hidden).unflatten(-1, (self.heads, -1)) for p in (attn.to_q, attn.to_k, attn.to_v))
        query, key = attn.norm_q(query), attn.norm_k(key)
        if text is not None:
            added = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            own_query, own_key, own_value = (p(text).unflatten(-1, (self.heads, -1)) for p in added)
            query = torch.cat([attn.norm_added_q(own_query), query], dim=1)
            key = torch.cat([attn.norm_added_k(own_key), key], dim=1)
            value = torch.cat([own_value, value], dim=1)
        query, key = (apply_rotary_emb(x, rotation, sequence_dim=1) for x in (query, key))
        return QKV(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))


class DoubleLayer(FluxLayer):
    """The attention of a ``FluxTransformerBlock``: text has projections of its own."""

    def text(self, hidden: Tensor) -> QKV:
        attn = self.module
        return self._qkv(
            hidden, (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj), (attn.norm_added_q, attn.norm_added_k)
        )

    def follow(self, text: EnteredText, image: QKV) -> tuple[Tensor, EnteredText]:
        block, tokens = self.block, text.tokens
        normed, gate, shift, scale, gate_ff = block.norm1_context(tokens, emb=text.condition)
        output, heard = self.meet(self.text(normed), image)
        tokens = tokens + gate[:, None] * self.module.to_add_out(heard)
        normed = block.norm2_context(tokens) * (1 + scale[:, None]) + shift[:, None]
        return output, EnteredText(_bounded(tokens + gate_ff[:, None] * block.ff_context(normed)), text.condition)


class SingleLayer(FluxLayer):
    """The attention of a ``FluxSingleTransformerBlock``: text goes through the image's projections."""

    def text(self, hidden: Tensor) -> QKV:
        attn = self.module
        return self._qkv(hidden, (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k))

    def follow(self, text: EnteredText, image: QKV) -> tuple[Tensor, EnteredText]:
        block = self.block
        normed, gate = block.norm(text.tokens, emb=text.condition)
        output, heard = self.meet(self.text(normed), image)
        both = torch.cat([heard, block.act_mlp(block.proj_mlp(normed))], dim=2)
        return output, EnteredText(_bounded(text.tokens + gate[:, None] * block.proj_out(both)), text.condition)


class FluxAttention(FluxAttnProcessor):  # type: ignore[misc]
    """Is diffusers' processor where nothing acts in a forward; one object for all layers."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend to text and image; a single block gives both as one sequence ``(R, T + N, C)``, text first.

        Raises ``ConfigError`` where tokens are masked.
        """
        heard: Heard = attn.heard
        check_unmasked(heard.layer, attention_mask)
        if not heard.state.steered:
            plain: Tensor | tuple[Tensor, Tensor] = super().__call__(
                attn, hidden_states, encoder_hidden_states, image_rotary_emb=image_rotary_emb
            )
            return plain
        layer, length = heard.layer, heard.state.tokens
        assert isinstance(layer, FluxLayer)
        assert image_rotary_emb is not None
        tokens = layer.tokens(hidden_states, encoder_hidden_states, image_rotary_emb)
        text, image = tokens.split(length)
        both = merge_heads(layer.attend(tokens))
        told, seen = both.tensor_split([length], dim=1)
        joined(heard, image, text, seen)
        if encoder_hidden_states is None:
            return both
        # As diffusers has them: of parts of a row torch adds the bias in a step of its own, and rounds twice.
        return attn.to_out[1](attn.to_out[0](seen.contiguous())), attn.to_add_out(told.contiguous())


def _bounded(tokens: Tensor) -> Tensor:
    return tokens.clip(-LARGEST_HALF, LARGEST_HALF) if tokens.dtype == torch.float16 else tokens
