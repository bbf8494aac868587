"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a UNet with cross-attention, noise or velocity predicted.

The diorama is of this family too. The safety checker is not loaded: Lacuna's own audit looks at every picture, and a
checker that blackens pictures would hide what it found.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor

from pipeline.models.attention import AttentionState
from pipeline.models.encoders import short_tokens
from pipeline.models.family import Conditioning, Family, TextProjection, TextStream, check_sides
from pipeline.models.layers import Layer
from pipeline.models.processors import TEXT, share_self_attention
from pipeline.models.replaceable import check_cross_attention
from pipeline.models.transfer import to_device


class StableDiffusion(Family):
    """``StableDiffusionPipeline``: SD 1.x and 2.x, base and v-prediction."""

    name = "Stable Diffusion 1.x/2.x"
    offers = frozenset({"text_projections", "cross_attention", "guidance", "token_ids", "chunks"})
    lacks: ClassVar[dict[str, str]] = {"joint_attention": "its text enters by cross-attention; cease steers that"}
    load_options: ClassVar[dict[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    denoiser_name = "unet"
    summary_networks = ("text_encoder",)
    repeated = ("BasicTransformerBlock", "ResnetBlock2D")
    _addition: ClassVar[str | None] = None  # what its UNet adds to the embedding of the time step

    @classmethod
    def joints(cls, pipe: Any) -> dict[str, tuple[Any, Any]]:
        unet = pipe.unet.config
        widths = unet.get("cross_attention_dim")  # of the blocks, or one of all
        if isinstance(widths, list | tuple) and len(set(widths)) == 1:
            widths = widths[0]
        return {
            "unet's cross_attention_dim": (widths, cls._text_width(pipe)),
            "unet's in_channels": (unet.get("in_channels"), pipe.vae.config.get("latent_channels")),
            # Further conditions, which are not given to it here.
            "unet's class_embed_type": (unet.get("class_embed_type"), None),
            "unet's num_class_embeds": (unet.get("num_class_embeds"), None),
            "unet's encoder_hid_dim": (unet.get("encoder_hid_dim"), None),
            "unet's encoder_hid_dim_type": (unet.get("encoder_hid_dim_type"), None),  # pictures, of an IP adapter
            "unet's addition_embed_type": (unet.get("addition_embed_type"), cls._addition),
            # Without that embedding, which is not given it here, it draws something else.
            "unet's time_cond_proj_dim (an LCM's, guided by an embedding)": (unet.get("time_cond_proj_dim"), None),
        }

    @classmethod
    def _text_width(cls, pipe: Any) -> int:
        return int(pipe.text_encoder.config.hidden_size)

    @property
    def streams(self) -> tuple[TextStream, ...]:
        tokenizer = self.pipe.tokenizer
        return (TextStream(tokenizer, offset=0, length=tokenizer.model_max_length, causal=True),)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Conditioning:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        tokens = tokenizer(
            list(texts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        # SD was trained with attention to the padding, and only a few fine-tunes say otherwise.
        masked = getattr(encoder.config, "use_attention_mask", False)
        mask = to_device(tokens.attention_mask, self.device) if masked else None
        return Conditioning(encoder(to_device(tokens.input_ids, self.device), attention_mask=mask)[0].to(self.dtype))

    @torch.no_grad()
    def encode_ids(self, ids: Tensor) -> Conditioning:
        ids, encoder = to_device(ids, self.device), self.pipe.text_encoder
        ends = ids == self.pipe.tokenizer.eos_token_id
        read = ends.cumsum(1) - ends.long() == 0  # up to the end of the text
        mask = read.long() if getattr(encoder.config, "use_attention_mask", False) else None
        return Conditioning(encoder(ids, attention_mask=mask)[0].to(self.dtype))

    @torch.no_grad()
    def summaries(self, texts: Sequence[str]) -> Tensor:
        ids, ends = short_tokens(self.pipe.tokenizer, texts, self.device)
        states: Tensor = self.pipe.text_encoder(ids)[0]
        return states[torch.arange(len(ids), device=self.device), ends].to(self.dtype)

    @property
    def factor(self) -> int:
        """Pixels to a latent, along a side."""
        return int(2 ** (len(self.pipe.vae.config.block_out_channels) - 1))

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        factor = self.factor
        smallest = factor * 2 ** (len(self.pipe.unet.config.block_out_channels) - 1)
        check_sides(width, height, factor, smallest, "VAE")
        return self.pipe.unet.config.in_channels, height // factor, width // factor

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        embeds = conditioning.embeds
        predicted: Tensor = self.pipe.unet(latents, timestep, encoder_hidden_states=embeds, return_dict=False)[0]
        return predicted

    def decode(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.pipe.vae.decode(latents / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
        return pixels

    def _cross_attention(self) -> list[tuple[str, Any]]:
        """Return the layers that hear the text: the second of each block, and where it says so the first as well."""
        blocks = {n: m for n, m in self.pipe.unet.named_modules() if isinstance(m, BasicTransformerBlock)}
        names = [f"{n}.attn1" for n, block in blocks.items() if block.only_cross_attention]
        names += [f"{n}.attn2" for n, block in blocks.items() if block.attn2 is not None]
        return [(n, m) for n, m in self.pipe.unet.named_modules() if n in names]

    def text_projections(self) -> list[TextProjection]:
        projections = []
        for name, module in self._cross_attention():
            for attribute, kind in (("to_k", "key"), ("to_v", "value")):
                weight = getattr(module, attribute).weight
                projections.append(
                    TextProjection(f"unet.{name}.{attribute}.weight", kind, weight, f"unet.{name}", weight.shape[1])
                )
        return projections

    def attach(self, state: AttentionState) -> list[Layer]:
        found = sorted(self._cross_attention(), key=lambda item: _running_order(item[0]))
        layers: list[Layer] = []
        for i, (name, module) in enumerate(found):
            layer = Layer(f"unet.{name}", i, module.heads, module)
            check_cross_attention(layer.name, module)
            layers.append(layer)
        for layer in layers:
            layer.module.set_processor(TEXT)
        share_self_attention(self.pipe.unet)
        state.open(layers)
        return layers


def _running_order(name: str) -> int:
    """A UNet lists its modules as down, up, mid, and runs them as down, mid, up."""
    return ("down", "mid_", "up_b").index(name[:4])
