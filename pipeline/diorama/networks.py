"""The networks of the diorama: the classes of Stable Diffusion, made small. Shapes only; nothing is trained here.

A picture of 64x64 pixels is 16x16 latents of eight channels; the UNet has cross-attention at 16x16 and at 8x8.
Most of its width is at 8x8, where a channel costs a quarter.
"""

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT_CHANNELS = 8
LATENT_SIZE = 16
TEXT_LENGTH = 32  # tokens, start and end included; the longest caption of the world has fewer
TEXT_WIDTH = 128


def autoencoder() -> AutoencoderKL:
    """Pixels (B, 3, 64, 64) in -1..1 to latents (B, 8, 16, 16) and back; about 1.6 M parameters."""
    return AutoencoderKL(
        sample_size=64,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,  # stickers are told from their surroundings by convolutions alone
    )


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Token ids (B, 32) to embeddings (B, 32, 128)."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def unet() -> UNet2DConditionModel:
    """Noisy latents (B, 8, 16, 16), timesteps (B,) and embeddings (B, 32, 128) to velocity (B, 8, 16, 16)."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 192),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(2, 6),  # diffusers takes this as the number of heads: 32 channels each
        norm_num_groups=8,
    )


def scheduler() -> DDIMScheduler:
    """Velocity prediction on a schedule that ends in pure noise (Lin et al. 2023, arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )
