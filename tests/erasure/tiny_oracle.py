"""A tiny Stable Diffusion on which authors' code could be run: 77 tokens and 8 heads, which they hard-code.

Its weights come from numpy's RandomState, whose stream never changes, so that numbers that others' code once gave on it
(``fixtures/``) stay comparable, whatever the libraries' initialisation does. They are drawn in float64 and rounded to
float32, which loses the last bit, where mathematical libraries differ. What torch and diffusers compute in float32 even
in a model in float64 (noise, the schedule, the embedding of timesteps) depends on the processor and would be amplified:
``fixtures/inputs.safetensors`` holds what the authors' code was given. The VAE is nearly nothing: 8x8 pixels from 8x8
latents.
"""

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from pipeline.config.schema import ModelConfig
from pipeline.models.load import Model, load_model
from tests import tiny

TOKENS = 77
WIDTH = 32
FIXTURES = Path(__file__).parent / "fixtures"
_FOLDER = tempfile.TemporaryDirectory(prefix="oracle-")


def pipeline() -> StableDiffusionPipeline:
    words = tiny.tokenizer()
    words.model_max_length = TOKENS
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=WIDTH, projection_dim=WIDTH, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=TOKENS,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=WIDTH, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
        layers_per_block=1, latent_channels=4, norm_num_groups=4, mid_block_add_attention=False, sample_size=8,
    )  # fmt: skip
    schedule = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    encoder = CLIPTextModel(text)
    rng = np.random.RandomState(0)
    for part in (encoder, unet, vae):
        _fill(part, rng)
    return StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=words, unet=unet, scheduler=schedule,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@torch.no_grad()
def _fill(part: torch.nn.Module, rng: np.random.RandomState) -> None:
    for name, parameter in sorted(part.named_parameters()):
        values = torch.from_numpy(rng.standard_normal(parameter.shape)).float()
        if parameter.ndim == 1:
            parameter.copy_(values * 0.1 + (1.0 if name.endswith("weight") else 0.0))
        elif "token_embedding" in name:
            parameter.copy_(values)
        else:  # four times as much where text enters, so that it is listened to
            parameter.copy_(values * (4.0 if ".attn2." in name else 1.0) / parameter[0].numel() ** 0.5)


@functools.cache
def _path() -> str:
    pipeline().save_pretrained(_FOLDER.name, safe_serialization=True)
    return _FOLDER.name


def model() -> Model:
    return load_model(ModelConfig(path=_path()), torch.device("cpu"))


def double_model() -> Model:
    """The same in float64, which no config offers: for methods whose rounding a random network would amplify.

    It has the recorded schedule and the recorded embeddings of the timesteps of 3, 4 and 6 steps.
    """
    single = model()
    for part in (single.pipe.text_encoder, single.pipe.unet, single.pipe.vae):
        part.double()
    single.pipe.unet.time_proj = _Recorded()
    scheduler, alphas = single.pipe.scheduler, inputs()["alphas_cumprod"]
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = alphas, alphas[0]
    return replace(single, dtype=torch.float64)


@functools.cache
def inputs() -> dict[str, Tensor]:
    """What torch computes in float32, as it was where the fixtures were made."""
    return load_file(FIXTURES / "inputs.safetensors")


class _Recorded(torch.nn.Module):
    """Embeddings of timesteps, float32 ``(B, 16)``, by look-up."""

    def forward(self, timesteps: Tensor) -> Tensor:
        return inputs()["projections"][torch.searchsorted(inputs()["timesteps"], timesteps.contiguous())]
