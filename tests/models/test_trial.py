"""What is found out by trying a loaded model: parts that fail, noise that is not the picture's, layers that hear."""

from pathlib import Path

import pytest
import torch
from diffusers import ConsistencyDecoderVAE, DDIMScheduler, UNet2DConditionModel

from pipeline.errors import ConfigError
from pipeline.models.attention import AttentionState
from pipeline.models.trial import try_out
from tests import tiny_families
from tests.models.broken import copy, load, part, refused, settings


class GlobalNoise(DDIMScheduler):
    """Draws from torch's own generator."""

    def step(self, model_output, timestep, sample, return_dict=True):
        output = super().step(model_output, timestep, sample, return_dict=return_dict)
        return (output[0] + 0.1 * torch.randn(sample.shape), *output[1:])


class OneSeed(DDIMScheduler):
    """Draws the same noise at every run, whatever the pictures' seeds."""

    def step(self, model_output, timestep, sample, return_dict=True):
        output = super().step(model_output, timestep, sample, return_dict=return_dict)
        noise = torch.stack(
            [torch.randn(sample.shape[1:], generator=torch.Generator().manual_seed(i)) for i in range(2)]
        )
        return (output[0] + 0.1 * noise[: len(sample)], *output[1:])


@pytest.mark.parametrize("kind", [GlobalNoise, OneSeed])
def test_a_scheduler_whose_noise_is_not_the_pictures(kind: type[DDIMScheduler], tmp_path: Path):
    family = load(copy("sd", tmp_path)).family
    try_out("it", family, "key")
    family.pipe.scheduler = kind.from_config(family.pipe.scheduler.config)
    reason = f"^key: {kind.__name__} draws noise that the picture's seed does not decide; model.scheduler may name"
    with pytest.raises(ConfigError, match=reason):
        try_out("it", family, "key")


def test_a_decoder_that_draws_by_itself(tmp_path: Path):
    folder, levels = copy("sd", tmp_path), 4
    decoder = ConsistencyDecoderVAE(
        decoder_block_out_channels=(32,) * levels, decoder_layers_per_block=1, decoder_norm_num_groups=8,
        decoder_down_block_types=("ResnetDownsampleBlock2D",) * levels,
        decoder_up_block_types=("ResnetUpsampleBlock2D",) * levels, encoder_block_out_channels=(16, 16, 16),
        encoder_down_block_types=("DownEncoderBlock2D",) * 3, encoder_layers_per_block=1, encoder_norm_num_groups=8,
        encoder_out_channels=4, latent_channels=4,
    )  # fmt: skip
    part(folder, "vae", decoder)
    assert "its vae, ConsistencyDecoderVAE, draws noise that the picture's seed does not decide" in refused(folder)


@pytest.mark.parametrize("family", ["sd", "sd3", "flux"])
def test_numbers_by_which_latents_are_scaled(family: str, tmp_path: Path):
    folder = copy(family, tmp_path)
    settings(folder, "vae/config.json", scaling_factor=None)
    assert "its vae/config.json has scaling_factor: null; expected a number" in refused(folder)
    settings(folder, "vae/config.json", scaling_factor=1.0, shift_factor=...)
    if family == "sd":  # it is scaled alone
        load(folder)
    else:
        assert "its vae/config.json has shift_factor: null; expected a number" in refused(folder)


@pytest.mark.parametrize("where", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("how", ["bitsandbytes", "quanto", "gguf", "gptq"])
def test_quantised_weights(where: str, how: str, tmp_path: Path):
    folder = copy("sd", tmp_path)
    settings(folder, f"{where}/config.json", quantization_config={"quant_method": how, "load_in_8bit": True})
    assert f"{where}: its weights are quantised ({how}, by its config.json)" in refused(folder)


def test_a_text_encoder_that_gives_one_vector_for_a_text(tmp_path: Path):
    folder = copy("sd", tmp_path)
    part(folder, "text_encoder", tiny_families.clip(128, 128))
    assert "its text encoder cannot be used: CLIPTextModelWithProjection gives one vector" in refused(folder)


def unet(**options) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=128, attention_head_dim=(2, 4), norm_num_groups=8, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_embed_type": "timestep"}, "its unet's class_embed_type is timestep; its other parts need None"),
        ({"num_class_embeds": 3}, "its unet's num_class_embeds is 3; its other parts need None"),
        ({"encoder_hid_dim": 128}, "its unet's encoder_hid_dim is 128; its other parts need None"),
        ({"dual_cross_attention": True}, "its unet, UNet2DConditionModel, cannot be used"),
        (
            {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
            "of the 7 layers of its unet that hear the text 6 are of a kind that can be edited and steered",
        ),
    ],
)
def test_unets_that_want_more_or_hear_otherwise(options: dict, message: str, tmp_path: Path):
    folder = copy("sd", tmp_path)
    part(folder, "unet", unet(**options))
    assert message in refused(folder)


def test_every_layer_that_hears_text_is_edited_and_steered(tmp_path: Path):
    """With only_cross_attention the first layer of a block hears the text as well, but in the middle."""
    folder = copy("sd", tmp_path)
    plain = load(folder).family
    part(folder, "unet", unet(only_cross_attention=True))
    family = load(folder).family
    assert (len(plain.text_projections()), len(family.text_projections())) == (2 * 7, 2 * 13)
    assert all(projection.weight.shape[1] == 128 for projection in family.text_projections())
    assert len(family.attach(AttentionState())) == 13
