"""Parts of a pipeline whose files are not whole, or that do not belong together: one line, where it ran on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.load import Model, load_model
from tests import tiny, tiny_families

NETWORKS = {
    "sd": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "text_encoder_2"),
    "sd3": ("transformer", "text_encoder_3"),
    "flux": ("transformer", "text_encoder", "text_encoder_2"),
}
CASES = [(family, part) for family, parts in NETWORKS.items() for part in parts]


def source(family: str) -> Path:
    return Path(tiny.path() if family == "sd" else tiny_families.path(family))


def copy(family: str, folder: Path) -> Path:
    return Path(shutil.copytree(source(family), folder / family))


def load(folder: Path, **options) -> Model:
    return load_model(ModelConfig(path=str(folder), **options), torch.device("cpu"))


def refused(folder: Path, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def settings(folder: Path, file: str, **changed) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def weights(folder: Path, part: str) -> Path:
    (path,) = (folder / part).glob("*.safetensors")
    return path


@pytest.mark.parametrize(("family", "part"), CASES)
def test_a_file_that_lacks_a_tensor(family: str, part: str, tmp_path: Path):
    folder = copy(family, tmp_path)
    state = load_file(weights(folder, part))
    key = next(key for key in sorted(state) if key.endswith("weight"))
    del state[key]
    save_file(state, weights(folder, part), {"format": "pt"})
    message = refused(folder)
    assert f"{part}: its file lacks 1 tensor, such as " in message
    assert key.split(".")[-2] in message


@pytest.mark.parametrize(
    ("family", "part", "changed", "message"),
    [
        ("sd", "text_encoder", {"num_hidden_layers": 4}, "its file lacks 32 tensors, such as "),
        ("sd", "text_encoder", {"num_hidden_layers": 1}, "its config.json has no place for 16 tensors, such as "),
        ("sd", "text_encoder", {"hidden_size": 64}, "its file belongs to another config.json: "),
        ("sd", "text_encoder", {"vocab_size": 4000}, "its file belongs to another config.json: "),
        ("sd", "unet", {"layers_per_block": 2}, "cannot be loaded"),
        ("sd", "unet", {"block_out_channels": [32, 32]}, "cannot be loaded"),
        ("sd", "vae", {"latent_channels": 8}, "cannot be loaded"),
        ("flux", "transformer", {"num_layers": 1}, "its config.json has no place for "),
        ("flux", "text_encoder_2", {"num_layers": 1}, "its config.json has no place for "),
    ],
)
def test_a_file_of_another_config(family: str, part: str, changed: dict, message: str, tmp_path: Path):
    folder = copy(family, tmp_path)
    settings(folder, f"{part}/config.json", **changed)
    reason = refused(folder)
    assert f": {part}" in reason
    assert message in reason


def test_what_is_no_part_of_the_network_may_lie_in_its_file(tmp_path: Path):
    """Old CLIP files have position_ids, and those of a whole CLIP its half for pictures."""
    folder = copy("sd", tmp_path)
    state = load_file(weights(folder, "text_encoder"))
    state["text_model.embeddings.position_ids"] = torch.arange(tiny.LENGTH)[None]
    state["vision_model.encoder.layers.0.layer_norm1.weight"] = torch.ones(8)
    save_file(state, weights(folder, "text_encoder"), {"format": "pt"})
    expected = load(source("sd")).family.encode(["a cat"]).embeds
    assert torch.equal(load(folder).family.encode(["a cat"]).embeds, expected)


def test_a_variant_that_some_parts_lack_and_a_file_in_shards(tmp_path: Path):
    folder = copy("sd", tmp_path)
    unet = weights(folder, "unet")
    unet.rename(unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    path = weights(folder, "text_encoder")
    state = load_file(path)
    path.unlink()
    halves = {
        "model-00001-of-00002.safetensors": sorted(state)[::2],
        "model-00002-of-00002.safetensors": sorted(state)[1::2],
    }
    for name, keys in halves.items():
        save_file({key: state[key] for key in keys}, path.with_name(name), {"format": "pt"})
    places = {key: name for name, keys in halves.items() for key in keys}
    path.with_name("model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    plain, loaded = load(source("sd")), load(folder, variant="fp16")
    for (name, weight), (_, ours) in zip(plain.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(weight, ours), name
    settings(folder, "text_encoder/config.json", num_hidden_layers=3)
    assert "text_encoder: its file lacks 16 tensors" in refused(folder, variant="fp16")


def test_parts_of_another_model(tmp_path: Path):
    """SDXL's networks in SD's folder, and SD's folder under the name of SDXL."""
    for part, message in (
        ("text_encoder", "cross_attention_dim is 128; its other parts need 64"),
        ("unet", "160"),
    ):
        folder = copy("sd", tmp_path / part)
        shutil.rmtree(folder / part)
        shutil.copytree(source("sdxl") / part, folder / part)
        assert message in refused(folder)
    folder = copy("sd", tmp_path)
    settings(folder, "model_index.json", _class_name="StableDiffusionXLPipeline")
    assert "has no text_encoder_2, which Stable Diffusion XL needs" in refused(folder)


@pytest.mark.parametrize(
    ("family", "part", "message"),
    [
        ("sdxl", "text_encoder", "cross_attention_dim is 160; its other parts need 192"),
        ("sd3", "text_encoder", "pooled_projection_dim is 160; its other parts need 192"),
        ("flux", "text_encoder", "pooled_projection_dim is 64; its other parts need 96"),
    ],
)
def test_a_text_encoder_of_another_width(family: str, part: str, message: str, tmp_path: Path):
    folder = copy(family, tmp_path)
    encoder = tiny_families.clip(96, 96 if family == "sd3" else None)
    shutil.rmtree(folder / part)
    encoder.save_pretrained(folder / part)
    assert message in refused(folder)


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "vae"])
def test_a_part_that_the_index_says_is_absent(part: str, tmp_path: Path):
    folder = copy("sd", tmp_path)
    settings(folder, "model_index.json", **{part: [None, None]})
    assert f"has no {part}, which Stable Diffusion 1.x/2.x needs" in refused(folder)


@pytest.mark.parametrize("gone", ["tokenizer", "tokenizer/tokenizer.json"])
def test_a_tokenizer_without_its_files(gone: str, tmp_path: Path):
    folder = copy("sd", tmp_path)
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "of the 598 tokens that its text encoder does; is a file of it missing?" in refused(folder)


def test_a_tokenizer_whose_texts_are_longer_than_the_encoder_reads(tmp_path: Path):
    folder = copy("sd", tmp_path)
    settings(folder, "tokenizer/tokenizer_config.json", model_max_length=10**30)
    assert "but its text encoder reads 24 tokens at most" in refused(folder)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_unet_of_an_lcm(family: str, tmp_path: Path):
    folder = copy(family, tmp_path)
    settings(folder, "unet/config.json", time_cond_proj_dim=32)
    state = load_file(weights(folder, "unet"))
    state["time_embedding.cond_proj.weight"] = torch.zeros(32, 32)
    save_file(state, weights(folder, "unet"), {"format": "pt"})
    assert (
        "its unet's time_cond_proj_dim (an LCM's, guided by an embedding) is 32; its other parts need None"
        in refused(folder)
    )
