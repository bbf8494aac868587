"""Stable Diffusion XL: two CLIP encoders side by side, one pooled vector besides, and the size as a condition.

The two encoders' tokens lie at the same places (only their padding differs), so their embeddings are concatenated along
the features, and the text is one stream. The pooled vector is added to the embedding of the time step, together with
the size: a second way in for text, which cross-attention does not see.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.models.encoders import clip_pooled, clip_tokens_and_pooled, token_ids
from pipeline.models.family import Conditioning, TextProjection
from pipeline.models.sd import StableDiffusion
from pipeline.models.transfer import to_device


class StableDiffusionXL(StableDiffusion):
    """``StableDiffusionXLPipeline``, base and fine-tunes. The refiner, another pipeline, is not used."""

    name = "Stable Diffusion XL"
    load_options: ClassVar[dict[str, Any]] = {"add_watermarker": False}
    summary_networks = ("text_encoder_2",)
    _addition = "text_time"

    def __init__(self, pipe: Any, device: torch.device):
        super().__init__(pipe, device)
        if pipe.vae.dtype == torch.float16 and pipe.vae.config.force_upcast:
            pipe.vae.to(torch.float32)  # its activations leave the range of float16

    @classmethod
    def joints(cls, pipe: Any) -> dict[str, tuple[Any, Any]]:
        unet, pooled = pipe.unet.config, pipe.text_encoder_2.config.projection_dim
        added = pooled + 6 * (unet.get("addition_time_embed_dim") or 0)  # the pooled text and the six numbers of size
        width = "unet's projection_class_embeddings_input_dim"
        return {**super().joints(pipe), width: (unet.get("projection_class_embeddings_input_dim"), added)}

    @classmethod
    def _text_width(cls, pipe: Any) -> int:
        return int(pipe.text_encoder.config.hidden_size + pipe.text_encoder_2.config.hidden_size)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Conditioning:
        pipe, length = self.pipe, self.pipe.tokenizer.model_max_length
        first, second = (token_ids(t, texts, length, self.device) for t in (pipe.tokenizer, pipe.tokenizer_2))
        return self._side_by_side(first, second)

    @torch.no_grad()
    def encode_ids(self, ids: Tensor) -> Conditioning:
        ids, (first, second) = to_device(ids, self.device), (self.pipe.tokenizer, self.pipe.tokenizer_2)
        ended = (ids == first.eos_token_id).cumsum(1) - (ids == first.eos_token_id).long() > 0
        other = torch.where(ended, second.pad_token_id, ids)  # the second tokenizer pads otherwise
        return self._side_by_side(ids, other)

    @torch.no_grad()
    def summaries(self, texts: Sequence[str]) -> Tensor:
        return clip_pooled(self.pipe.tokenizer_2, self.pipe.text_encoder_2, texts, self.device).to(self.dtype)

    def _side_by_side(self, first: Tensor, second: Tensor) -> Conditioning:
        tokens, _ = clip_tokens_and_pooled(self.pipe.text_encoder, first)
        tokens_2, pooled = clip_tokens_and_pooled(self.pipe.text_encoder_2, second)
        return Conditioning(torch.cat([tokens, tokens_2], dim=-1).to(self.dtype), pooled.to(self.dtype))

    def as_negative(self, encoded: Conditioning, texts: Sequence[str]) -> Conditioning:
        """Return negative prompts, of which an empty one is all zeros where the model was trained so."""
        if not self.pipe.config.force_zeros_for_empty_prompt:
            return encoded
        given = torch.tensor([bool(text) for text in texts], device=self.device)
        assert encoded.pooled is not None
        embeds, pooled = (
            torch.where(given[:, None, None], encoded.embeds, 0),
            torch.where(given[:, None], encoded.pooled, 0),
        )
        return replace(encoded, embeds=embeds, pooled=pooled)

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        rows, _, h, w = latents.shape
        size, dtype = (h * self.factor, w * self.factor), conditioning.embeds.dtype
        # The original size, the top left corner of the crop, and the size asked for; made on the device.
        numbers = [torch.full((rows,), number, dtype=dtype, device=latents.device) for number in (*size, 0, 0, *size)]
        predicted: Tensor = self.pipe.unet(
            latents,
            timestep,
            encoder_hidden_states=conditioning.embeds,
            added_cond_kwargs={"text_embeds": conditioning.pooled, "time_ids": torch.stack(numbers, dim=1)},
            return_dict=False,
        )[0]
        return predicted

    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = latents.to(vae.dtype)
        if vae.config.latents_mean is None or vae.config.latents_std is None:
            latents = latents / vae.config.scaling_factor
        else:
            mean, std = (
                to_device(torch.tensor(values, dtype=latents.dtype).view(1, -1, 1, 1), latents.device)
                for values in (vae.config.latents_mean, vae.config.latents_std)
            )
            latents = latents * std / vae.config.scaling_factor + mean
        pixels: Tensor = vae.decode(latents, return_dict=False)[0]
        return pixels

    def text_projections(self) -> list[TextProjection]:
        weight = self.pipe.unet.add_embedding.linear_1.weight  # its input: the pooled text, then the sizes' embedding
        pooled = TextProjection(
            "unet.add_embedding.linear_1.weight",
            "pooled",
            weight,
            "unet.add_embedding",
            self.pipe.text_encoder_2.config.projection_dim,
        )
        return [*super().text_projections(), pooled]
