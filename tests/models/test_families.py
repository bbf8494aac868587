"""SDXL, SD3 and FLUX: loaded by the same code as SD, with the schedulers, precisions, sizes and LoRAs that fit them."""

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from pipeline.config.schema import AdapterConfig, DType, ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.family import Family
from pipeline.models.load import load_model
from pipeline.registry import FAMILIES, load_class
from tests import tiny, tiny_families

CPU = torch.device("cpu")


def load(family: str, **options):
    return load_model(ModelConfig(path=tiny_families.path(family), **options), CPU)


@pytest.mark.parametrize(
    ("family", "scheduler", "options", "message"),
    [
        ("sdxl", "FlowMatchEulerDiscreteScheduler", {}, "integrates a flow, but Stable Diffusion XL predicts noise"),
        (
            "sd3",
            "DDIMScheduler",
            {},
            "does not integrate the flow that Stable Diffusion 3 predicts; use FlowMatchEuler",
        ),
        ("flux", "UniPCMultistepScheduler", {}, "does not integrate the flow that FLUX.1 predicts"),
        ("flux", "FlowMatchHeunDiscreteScheduler", {}, "cannot shift its schedule by the picture's size"),
    ],
)
def test_schedulers_that_do_not_fit(family: str, scheduler: str, options: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        load(family, scheduler=scheduler, scheduler_options=options)
    assert str(caught.value).startswith(f"model.scheduler: {scheduler}")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        ("sdxl", (32, 36), None),
        ("sdxl", (34, 32), "width 34 is not a multiple of 4"),
        ("sd3", (32, 36), "height 36 is not a multiple of 8, as this model's VAE and patches need"),
        ("sd3", (32, 136), "height 136 is above 128, this model's largest"),
        ("flux", (36, 32), "width 36 is not a multiple of 8, as this model's VAE and packing need"),
    ],
)
def test_sizes(family: str, size: tuple[int, int], message: str | None):
    driver = load(family).family
    if message is None:
        assert driver.latent_shape(*size) == (4, size[1] // 4, size[0] // 4)
    else:
        with pytest.raises(ConfigError, match=message):
            driver.latent_shape(*size)


def test_sdxl_decodes_in_float32_where_float16_would_overflow(tmp_path):
    torch.manual_seed(0)
    careful = load("sdxl", dtype=DType.float16)
    assert careful.pipe.unet.dtype == torch.float16
    assert careful.pipe.vae.dtype == torch.float32
    assert careful.family.decode(torch.zeros(1, 4, 8, 8, dtype=torch.float16)).isfinite().all()
    tiny_families.sdxl(force_upcast=False).save_pretrained(tmp_path, safe_serialization=True)
    assert load_model(ModelConfig(path=str(tmp_path), dtype=DType.float16), CPU).pipe.vae.dtype == torch.float16


def test_sdxl_undoes_the_normalisation_of_its_latents(tmp_path):
    torch.manual_seed(0)
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.5, 0.5, 2.0, 1.0]
    tiny_families.sdxl(latents_mean=mean, latents_std=std).save_pretrained(tmp_path, safe_serialization=True)
    driver = load_model(ModelConfig(path=str(tmp_path)), CPU).family
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    scaled = latents * torch.tensor(std).view(1, 4, 1, 1) / driver.pipe.vae.config.scaling_factor
    expected = driver.pipe.vae.decode(scaled + torch.tensor(mean).view(1, 4, 1, 1), return_dict=False)[0]
    assert torch.equal(driver.decode(latents), expected)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_streams_lie_end_to_end_within_the_embeddings(family: str):
    driver = load(family).family
    encoded = driver.encode(["a cat by a tree"])
    end = 0
    for stream in driver.streams:
        assert stream.offset == end
        end += stream.length
        ids = stream.tokenizer("a cat", truncation=True, max_length=stream.length).input_ids
        assert stream.first - stream.offset == (ids[0] == stream.tokenizer.bos_token_id)
    assert encoded.embeds.shape[1] == end
    assert encoded.pooled is not None
    assert driver.summary("a cat").shape == encoded.pooled[0].shape


def test_sdxl_encodes_ids_as_it_does_the_text_that_they_spell():
    driver = load("sdxl").family
    (stream,) = driver.streams
    texts = ["a cat by a tree", ""]
    ids = stream.tokenizer(texts, padding="max_length", max_length=stream.length, return_tensors="pt").input_ids
    assert torch.equal(driver.encode_ids(ids).embeds, driver.encode(texts).embeds)


def test_ids_are_encoded_without_their_padding_where_texts_are():
    driver = load_model(ModelConfig(path=tiny.path()), torch.device("cpu")).family
    (stream,) = driver.streams
    texts = ["a cat by a tree", ""]
    ids = stream.tokenizer(texts, padding="max_length", max_length=stream.length, return_tensors="pt").input_ids
    whole = driver.encode_ids(ids).embeds
    assert torch.equal(whole, driver.encode(texts).embeds)
    driver.pipe.text_encoder.config.use_attention_mask = True
    assert torch.equal(driver.encode_ids(ids).embeds, driver.encode(texts).embeds)
    assert not torch.allclose(driver.encode_ids(ids).embeds, whole, atol=1e-3)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_adapters_are_fused(family: str, tmp_path):
    model = load(family)
    denoiser, part = model.family.denoiser, model.family.denoiser_name
    denoiser.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k", "to_v"]))
    layers = {f"{part}_lora_layers": get_peft_model_state_dict(denoiser)}
    model.pipe.save_lora_weights(tmp_path, **layers, safe_serialization=True)
    plain, fused = load(family), load(family, adapters=[AdapterConfig(path=str(tmp_path))])
    names = [n for n, _ in plain.family.denoiser.named_parameters() if n.endswith(("to_k.weight", "to_v.weight"))]
    assert names
    for name in names:
        assert not torch.equal(plain.family.denoiser.get_parameter(name), fused.family.denoiser.get_parameter(name))
    others = [n for n, _ in plain.family.denoiser.named_parameters() if n not in names]
    for name in others:
        assert torch.equal(plain.family.denoiser.get_parameter(name), fused.family.denoiser.get_parameter(name))


def test_every_family_names_what_it_does_not_offer():
    for name in FAMILIES:
        family = load_class("family", name, FAMILIES, Family)
        assert not family.offers & family.lacks.keys()
