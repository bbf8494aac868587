"""A tiny Stable Diffusion whose attention sees the words of a prompt and no padding, as PixArt's does."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.config.schema import ModelConfig
from pipeline.models.family import Conditioning
from pipeline.models.load import Model, load_model
from pipeline.models.sd import StableDiffusion
from tests import tiny


class Masked(StableDiffusion):
    """Gives its UNet the mask of the text."""

    def encode(self, texts: Sequence[str]) -> Conditioning:
        return replace(super().encode(texts), mask=seen(self.pipe.tokenizer, texts))

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        return self.pipe.unet(
            latents,
            timestep,
            encoder_hidden_states=conditioning.embeds,
            encoder_attention_mask=conditioning.mask,
            return_dict=False,
        )[0]


def seen(tokenizer, texts: Sequence[str]) -> Tensor:
    """Return which tokens are no padding, bool ``(B, T)``."""
    given = tokenizer(list(texts), padding="max_length", max_length=tiny.LENGTH, return_tensors="pt")
    return given.attention_mask.bool()


def load(prediction: str = "epsilon") -> Model:
    model = load_model(ModelConfig(path=tiny.path(prediction)), torch.device("cpu"))
    return replace(model, family=Masked(model.pipe, model.device))
