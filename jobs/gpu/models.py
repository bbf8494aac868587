"""Pipelines of random weights, made on the spot: Stable Diffusion 2.1, SDXL and FLUX.1 as their configs have them.

Nothing is downloaded, and that weights are random changes no figure of time: the same layers of the same shapes run.
FLUX has its own transformer and VAE and reads 512 tokens, but with a tiny T5 and a tiny CLIP, which run once a prompt.
"tiny" is the same of two blocks of one layer each, with nothing between them, for machines without a GPU, where each
layer takes seconds to compile; so few random layers hardly hear a text, so that what hears it is louder.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from pipeline.models.flux import Flux
from pipeline.models.load import Model
from pipeline.models.sd import StableDiffusion
from pipeline.models.sdxl import StableDiffusionXL

SCALED: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
# Parts of the names of weights, and by how much they are multiplied.
LOUD = {
    ".attn2.": 4.0, "add_k_proj": 4.0, "add_v_proj": 4.0, "context_embedder": 4.0, "text_embedder": 4.0,
    "token_embedding": 10.0, "shared": 10.0,
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What one measurement draws: pixels of a side, pictures of a batch, steps of sampling."""

    pixels: int
    batch: int
    steps: int
    guidance: float


@dataclass(frozen=True)
class Kind:
    """A family: its pipeline at full size and tiny, what is drawn with each, and the method that erases in it."""

    make: Callable[[bool, Any], Any]  # tiny or not, and with which scheduler
    scheduler: Callable[[], Any]
    drives: Any
    full: Asked
    tiny: Asked
    erasing: str

    def asked(self, tiny: bool) -> Asked:
        return self.tiny if tiny else self.full


def random_model(kind: Kind, tiny: bool, device: torch.device, dtype: torch.dtype) -> Model:
    """Return *kind* on *device*, as ``load_model`` gives it."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    scheduler = kind.scheduler()  # on the CPU, where a loaded one has its tables
    torch.set_default_dtype(dtype)  # billions of random numbers: made as they stay, where they stay
    try:
        with torch.device(device):
            pipe = kind.make(tiny, scheduler)
    finally:
        torch.set_default_dtype(torch.float32)
    if tiny:
        _louder(pipe)
    pipe.to(device, dtype)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    family = kind.drives(pipe, device)
    if device.type == "cuda":
        for part in (family.denoiser, pipe.vae):
            part.to(memory_format=torch.channels_last)
    return Model(pipe, family, "random", device, dtype)


def _louder(pipe: Any) -> None:
    """Have denoiser and text encoders listen to what a token says, as trained ones do."""
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = [(name, weight) for module in modules for name, weight in module.named_parameters()]
    with torch.no_grad():
        for heard, times in LOUD.items():
            for weight in (weight for name, weight in weights if heard in name and name.endswith("weight")):
                weight.mul_(times)


def _sd21(tiny: bool, scheduler: Any) -> Any:
    width, words = (64, byte_tokenizer()) if tiny else (1024, byte_tokenizer())
    encoder = _clip(words, width, 2 if tiny else 23, 4 if tiny else 16)
    shape: dict[str, Any] = {
        "sample_size": 96, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, "attention_head_dim": (5, 10, 20, 20),
    }  # fmt: skip
    if tiny:
        shape = {
            "sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1, "attention_head_dim": (2, 4),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "mid_block_type": None,
        }  # fmt: skip
    unet = UNet2DConditionModel(cross_attention_dim=width, use_linear_projection=True, **shape)
    return StableDiffusionPipeline(
        vae=_vae(tiny, 4), text_encoder=encoder, tokenizer=words, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _sdxl(tiny: bool, scheduler: Any) -> Any:
    first, second = (32, 32) if tiny else (768, 1280)
    words = byte_tokenizer()
    shape: dict[str, Any] = {
        "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": (5, 10, 20), "addition_time_embed_dim": 256,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    if tiny:
        shape = {
            "sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1, "addition_time_embed_dim": 8,
            "transformer_layers_per_block": [1, 1], "attention_head_dim": (2, 4),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "mid_block_type": None,
        }  # fmt: skip
    unet = UNet2DConditionModel(
        cross_attention_dim=first + second, use_linear_projection=True, addition_embed_type="text_time",
        projection_class_embeddings_input_dim=second + 6 * shape["addition_time_embed_dim"], **shape,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=_vae(tiny, 4, force_upcast=False), unet=unet, tokenizer=words, tokenizer_2=byte_tokenizer(),
        text_encoder=_clip(words, first, 2 if tiny else 12, 4 if tiny else 12),
        text_encoder_2=_clip(words, second, 2 if tiny else 32, 4 if tiny else 20, projection=second),
        scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip


def _flux(tiny: bool, scheduler: Any) -> Any:
    words, pieces = byte_tokenizer(), letter_tokenizer(40 if tiny else 512)
    shape: dict[str, Any] = {
        "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
        "num_attention_heads": 24,
    }  # fmt: skip
    if tiny:
        shape = {
            "in_channels": 64, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
            "num_attention_heads": 4, "axes_dims_rope": (4, 6, 6),
        }  # fmt: skip
    t5 = T5Config(
        vocab_size=len(pieces), d_model=96, d_kv=24, d_ff=96, num_layers=2, num_heads=4,
        pad_token_id=pieces.pad_token_id, eos_token_id=pieces.eos_token_id,
    )  # fmt: skip
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            joint_attention_dim=t5.d_model, pooled_projection_dim=64, guidance_embeds=True, **shape
        ),
        scheduler=scheduler, vae=_vae(tiny, 16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_clip(words, 64, 2, 4), tokenizer=words, text_encoder_2=T5EncoderModel(t5), tokenizer_2=pieces,
    )  # fmt: skip


def _vae(tiny: bool, channels: int, **config: Any) -> AutoencoderKL:
    blocks = (32, 32) if tiny else (128, 256, 512, 512)
    return AutoencoderKL(
        block_out_channels=blocks, down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks), layers_per_block=0 if tiny else 2,  # a decoder has one more
        latent_channels=channels, mid_block_add_attention=not tiny, **config,
    )  # fmt: skip


def _clip(words: Any, width: int, layers: int, heads: int, projection: int | None = None) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(words) if width < 512 else 49408, hidden_size=width, intermediate_size=4 * width,
        num_hidden_layers=layers, num_attention_heads=heads, projection_dim=projection or width, hidden_act="gelu",
        max_position_embeddings=77, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)


def byte_tokenizer() -> Any:
    """A CLIP tokenizer that has learned no pieces: every letter is a token, and all 77 places are used as ever."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    start, end = "<|startoftext|>", "<|endoftext|>"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), start, end]
    return CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], bos_token=start, eos_token=end, unk_token=end,
        pad_token=end, model_max_length=77,
    )  # fmt: skip


def letter_tokenizer(length: int) -> Any:
    """A T5 tokenizer that knows letters alone, of prompts of *length* tokens."""
    letters = ["▁", *sorted(string.ascii_letters + string.digits + string.punctuation)]
    vocab = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")] + [(letter, -2.0) for letter in letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=length)


KINDS = {
    "sd21": Kind(
        _sd21,
        partial(DDIMScheduler, **SCALED, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False),
        StableDiffusion, Asked(768, 8, 20, 7.5), Asked(32, 4, 4, 7.5), "cease",
    ),
    "sdxl": Kind(
        _sdxl, partial(EulerDiscreteScheduler, **SCALED, timestep_spacing="leading"),
        StableDiffusionXL, Asked(1024, 8, 8, 5.0), Asked(32, 4, 4, 5.0), "cease",
    ),
    "flux": Kind(
        _flux, partial(FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True),
        Flux, Asked(1024, 4, 4, 3.5), Asked(32, 4, 4, 3.5), "cease_joint",
    ),
}  # fmt: skip
