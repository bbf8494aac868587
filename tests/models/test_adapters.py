"""LoRAs in a model: as strong as diffusers makes them, in every part, and what is said of those that cannot be used."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from pipeline.config.schema import AdapterConfig, DType, ModelConfig
from pipeline.erasure.concept import Concept
from pipeline.erasure.weights import Weights, WeightsOptions
from pipeline.errors import ConfigError
from pipeline.models.load import Model, load_model
from tests import tiny, tiny_families

CAT = Concept(name="cat")
CPU = torch.device("cpu")
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def load(path: str, *adapters: Path) -> Model:
    return load_model(ModelConfig(path=path, adapters=[AdapterConfig(path=str(adapter)) for adapter in adapters]), CPU)


def lora(**spoilt: torch.Tensor) -> dict[str, torch.Tensor]:
    """A LoRA of one layer of the tiny model, in kohya's layout."""
    key = f"lora_unet_{LAYER.replace('.', '_')}"
    down, up = torch.full((2, 128), 0.1), torch.full((32, 2), 0.1)
    matrices = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2.0)}
    return {f"{key}.{name}": tensor for name, tensor in {**matrices, **spoilt}.items()}


def test_alpha_of_the_metadata_counts_as_in_diffusers(tmp_path: Path):
    pipe = StableDiffusionPipeline.from_pretrained(tiny.path())
    pipe.unet.add_adapter(LoraConfig(r=4, lora_alpha=16, init_lora_weights=False, target_modules=["attn2.to_k"]))
    state, metadata = get_peft_model_state_dict(pipe.unet), _collate_lora_metadata({"unet": pipe.unet})
    pipe.save_lora_weights(tmp_path, unet_lora_layers=state, **metadata)
    reference = StableDiffusionPipeline.from_pretrained(tiny.path())
    before = reference.unet.get_parameter(f"{LAYER}.weight").clone()
    reference.load_lora_weights(str(tmp_path))
    reference.fuse_lora()
    reference.unload_lora_weights()
    expected = reference.unet.get_parameter(f"{LAYER}.weight")
    product = state[f"{LAYER}.lora_B.weight"] @ state[f"{LAYER}.lora_A.weight"]
    assert torch.allclose(expected - before, 16 / 4 * product, atol=1e-5)
    assert torch.equal(load(tiny.path(), tmp_path).pipe.unet.get_parameter(f"{LAYER}.weight"), expected)
    edit = Weights(load(tiny.path()), (CAT,), WeightsOptions(path=str(tmp_path)), label="weights").edit()
    assert torch.equal(edit[f"unet.{LAYER}.weight"], expected)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_the_text_encoders_part_is_fused(family: str, tmp_path: Path):
    path = tiny_families.path(family)
    plain = load(path)
    names = [name for name, _ in plain.pipe.text_encoder.named_parameters() if name.endswith("q_proj.weight")]
    state, expected = {}, {}
    for name in names:
        weight = plain.pipe.text_encoder.get_parameter(name)
        down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
        stem = f"text_encoder.{name.removesuffix('.weight')}"
        state |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        expected[name] = weight + up @ down
    assert names
    save_file(state, tmp_path / "lora.safetensors")
    fused = load(path, tmp_path)
    for name in names:
        assert torch.allclose(fused.pipe.text_encoder.get_parameter(name), expected[name], atol=1e-5)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "it holds no LoRA matrices"),
        ({"lora_unet_x.hada_w1_a": torch.ones(2, 2)}, "it holds no LoRA matrices"),
        (lora(dora_scale=torch.ones(32, 1)), "a DoRA of kohya's"),
        (lora(**{"lora_up.weight": torch.full((32, 2), torch.nan)}), "lora_up.weight has values that are not finite"),
    ],
)
def test_files_that_are_no_use(state: dict[str, torch.Tensor], message: str, tmp_path: Path):
    save_file(state, tmp_path / "lora.safetensors")
    with pytest.raises(ConfigError) as caught:
        load(tiny.path(), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_revision_beside_a_file_is_refused(tmp_path: Path):
    save_file(lora(), tmp_path / "lora.safetensors")
    adapter = AdapterConfig(path=str(tmp_path / "lora.safetensors"), revision="main")
    with pytest.raises(ConfigError, match="only what is on the hub has revisions"):
        load_model(ModelConfig(path=tiny.path(), adapters=[adapter]), CPU)
    weights = Weights(load(tiny.path()), (CAT,), WeightsOptions(path=str(tmp_path), revision="main"), label="weights")
    with pytest.raises(ConfigError, match="only what is on the hub has revisions"):
        weights.edit()


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port of nobody
    with pytest.raises(ConfigError, match="no file here, and the hub cannot be reached") as caught:
        load(tiny.path(), Path("nobody/no-such-lora"))
    assert "\n" not in str(caught.value)


def test_a_strength_that_leaves_the_range_of_float16(tmp_path: Path):
    save_file(lora(), tmp_path / "lora.safetensors")
    adapter = AdapterConfig(path=str(tmp_path), weight=1e7)  # 0.02 in every weight
    with pytest.raises(ConfigError, match=r"at the strength 10000000.0 it leaves the range of float16 in unet\."):
        load_model(ModelConfig(path=tiny.path(), adapters=[adapter], dtype=DType.float16), CPU)
