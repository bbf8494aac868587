"""Tiny SDXL, SD3 and FLUX pipelines with random weights and real tokenizers, made on the spot and saved like any model.

Their text encoders listen mostly to what a token says, and their denoisers to the text, as trained ones would.
"""

import functools
import re
import string
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests import tiny

FAMILIES = ("sdxl", "sd3", "flux", "schnell")
T5_LENGTH = 20  # tokens of a prompt


def t5_tokenizer() -> T5Tokenizer:
    """A unigram tokenizer of T5's conventions: the words of a few sentences, and letters for all others."""
    words = sorted({word for sentence in tiny.SENTENCES for word in re.findall(r"\w+", sentence)})
    pieces = [*(f"▁{word}" for word in words), "▁", *sorted(string.ascii_letters + string.digits + string.punctuation)]
    vocab = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    vocab += [(piece, -2.0 if len(piece) > 1 else -10.0) for piece in pieces]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=T5_LENGTH)


def clip(width: int, projection: int | None) -> Any:
    words = tiny.tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=width, projection_dim=projection or width,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=tiny.LENGTH,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    encoder = CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
    with torch.no_grad():
        encoder.get_input_embeddings().weight.mul_(10.0)
    return encoder


def t5(width: int) -> T5EncoderModel:
    words = t5_tokenizer()
    config = T5Config(
        vocab_size=len(words), d_model=width, d_kv=width // 4, d_ff=width, num_layers=2, num_heads=4,
        pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    return T5EncoderModel(config)


def vae(channels: int, **config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=channels, norm_num_groups=8,
        mid_block_add_attention=False, sample_size=32, **config,
    )  # fmt: skip


def louder(denoiser: torch.nn.Module, *parts: str) -> Any:
    """Return *denoiser* with the weights whose names hold any of *parts* scaled up."""
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if name.endswith("weight") and any(part in name for part in parts):
                parameter.mul_(4.0)
    return denoiser


def sdxl(**vae_config: Any) -> StableDiffusionXLPipeline:
    second = tiny.tokenizer()
    second.pad_token = "!"  # as in SDXL, where the second tokenizer pads otherwise than the first
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        transformer_layers_per_block=(1, 2), cross_attention_dim=160, attention_head_dim=(2, 4), norm_num_groups=8,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=96 + 6 * 8,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=vae(4, **vae_config), text_encoder=clip(64, None), text_encoder_2=clip(96, 96),
        tokenizer=tiny.tokenizer(), tokenizer_2=second, unet=louder(unet, ".attn2."),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )  # fmt: skip


def sd3(with_t5: bool = True) -> StableDiffusion3Pipeline:
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=8, out_channels=8, num_layers=3, attention_head_dim=16,
        num_attention_heads=4, joint_attention_dim=160, caption_projection_dim=64, pooled_projection_dim=160,
        pos_embed_max_size=16, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=louder(transformer, "add_k_proj", "add_v_proj", "context_embedder", "text_embedder"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(8, scaling_factor=1.5, shift_factor=0.06),
        text_encoder=clip(64, 64), tokenizer=tiny.tokenizer(), text_encoder_2=clip(96, 96),
        tokenizer_2=tiny.tokenizer(), text_encoder_3=t5(160) if with_t5 else None,
        tokenizer_3=t5_tokenizer() if with_t5 else None,
    )  # fmt: skip


def flux(distilled: bool = True) -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=32, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=96, pooled_projection_dim=64, guidance_embeds=distilled, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return FluxPipeline(
        transformer=louder(transformer, "add_k_proj", "add_v_proj", "context_embedder", "text_embedder"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=distilled),
        vae=vae(8, scaling_factor=0.4, shift_factor=0.1), text_encoder=clip(64, None), tokenizer=tiny.tokenizer(),
        text_encoder_2=t5(96), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


_FOLDER = tempfile.TemporaryDirectory(prefix="tiny-families-")
_MAKERS = {
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "schnell": functools.partial(flux, distilled=False),
    "sd3-without-t5": functools.partial(sd3, with_t5=False),
}


@functools.cache
def path(family: str) -> str:
    """The path of a tiny pipeline that the whole test process shares; not to be written to."""
    torch.manual_seed(0)
    folder = Path(_FOLDER.name) / family
    _MAKERS[family]().save_pretrained(folder, safe_serialization=True)
    return str(folder)
