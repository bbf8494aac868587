"""LoRAs in a model: as strong as diffusers makes them, in every part, and what is said of those that cannot be used."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from pipeline.concepts.concept import Concept
from pipeline.config.schema import AdapterConfig, DType, ModelConfig
from pipeline.erasure.methods.weights import Weights, WeightsOptions
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


def mixed(path: str, suffixes: tuple[str, str], stems: dict[str, str], alphas: Sequence[float | None]):
    """Return a LoRA of the layers *stems* (their names in the file, by name from the pipeline on) of the model *path*,
    with ranks 2 and 4 and *alphas* in turn, and what their weights come to: each its own alpha over its own rank."""
    weights, generator = dict(load(path).parameters()), torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    expected: dict[str, torch.Tensor] = {}
    for i, (layer, stem) in enumerate(stems.items()):
        weight, rank, alpha = weights[f"{layer}.weight"], (2, 4)[i // 2 % 2], alphas[i % len(alphas)]
        down = torch.randn(rank, weight.shape[1], generator=generator)
        up = torch.randn(weight.shape[0], rank, generator=generator)
        state |= {stem + suffixes[0]: down, stem + suffixes[1]: up}
        if alpha is not None:
            state[f"{stem}.alpha"] = torch.tensor(float(alpha))
        expected[f"{layer}.weight"] = weight + (rank if alpha is None else alpha) / rank * up @ down
    return state, expected


def kohya_names(family: str) -> dict[str, str]:
    """Layers of attention and of the text encoders' MLPs, and how kohya's trainer calls them."""
    two = family == "sdxl"
    parts = {"unet": "lora_unet_", "text_encoder": f"lora_te{'1' * two}_text_model_"}
    if two:
        parts["text_encoder_2"] = "lora_te2_text_model_"
    model, ends = load(path_of(family)), ("attn1.to_q", "attn2.to_k", "to_out.0", "q_proj", "out_proj", "mlp.fc1")
    names = [name.removesuffix(".weight") for name, _ in model.parameters()]
    layers = [(part, rest) for part, _, rest in (name.partition(".") for name in names) if rest.endswith(ends)]
    return {
        f"{part}.{rest}": parts[part] + rest.removeprefix("text_model.").replace(".", "_")
        for part, rest in layers
        if part in parts
    }


def path_of(family: str) -> str:
    return tiny.path() if family == "sd" else tiny_families.path(family)


@pytest.mark.slow
@pytest.mark.parametrize("alphas", [(1, 8, 2), (1, None), (8, 4, None, 1, 1)])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_each_layer_has_its_own_alpha_over_its_own_rank(family: str, alphas: Sequence[float | None], tmp_path: Path):
    state, expected = mixed(path_of(family), (".lora_down.weight", ".lora_up.weight"), kohya_names(family), alphas)
    assert {name.partition(".")[0] for name in expected} >= {"unet", "text_encoder"}
    save_file(state, tmp_path / "lora.safetensors")
    fused = dict(load(path_of(family), tmp_path).parameters())
    for name, weight in expected.items():
        assert torch.allclose(fused[name], weight, atol=1e-5), name


@pytest.mark.parametrize("alphas", [(1, 8, 2), (1, None)])
def test_each_layer_of_flux_has_its_own_alpha(alphas: Sequence[float | None], tmp_path: Path):
    path = tiny_families.path("flux")
    names = [name.removesuffix(".weight") for name, _ in load(path).parameters() if name.endswith("to_k.weight")]
    state, expected = mixed(path, (".lora_A.weight", ".lora_B.weight"), {name: name for name in names}, alphas)
    save_file(state, tmp_path / "lora.safetensors")
    fused = dict(load(path, tmp_path).parameters())
    assert len(expected) > 1
    for name, weight in expected.items():
        assert torch.allclose(fused[name], weight, atol=1e-5), name


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_layer_by_layer_diffusers_makes_the_same_of_it(family: str, tmp_path: Path):
    """Given one layer at a time, diffusers' own loader cannot mistake whose alpha it is."""
    names = {layer: stem for layer, stem in kohya_names(family).items() if stem.endswith(("attn2_to_k", "out_proj"))}
    state, _ = mixed(path_of(family), (".lora_down.weight", ".lora_up.weight"), names, (1, 8, None))
    save_file(state, tmp_path / "lora.safetensors")
    fused, reference = dict(load(path_of(family), tmp_path).parameters()), load(path_of(family))
    for layer, stem in names.items():
        reference.pipe.load_lora_weights({key: tensor for key, tensor in state.items() if key.startswith(f"{stem}.")})
        reference.pipe.fuse_lora(components=[layer.partition(".")[0]])
        reference.pipe.unload_lora_weights()
    expected = dict(reference.parameters())
    for layer in names:
        assert torch.allclose(fused[f"{layer}.weight"], expected[f"{layer}.weight"], atol=1e-6), layer


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_alphas_of_the_metadata_may_differ_by_layer(family: str, tmp_path: Path):
    """peft's way: patterns of ranks and alphas, of the denoiser and of the text encoder."""
    pipe = load(path_of(family)).pipe
    torch.manual_seed(0)
    pipe.unet.add_adapter(
        LoraConfig(
            r=4,
            lora_alpha=16,
            alpha_pattern={"attn2.to_k": 2},
            rank_pattern={"attn1.to_v": 2},
            init_lora_weights=False,
            target_modules=["to_k", "to_v"],
        )
    )
    pipe.text_encoder.add_adapter(
        LoraConfig(
            r=2,
            lora_alpha=8,
            alpha_pattern={"layers.0.self_attn.q_proj": 3},
            init_lora_weights=False,
            target_modules=["q_proj", "fc1"],
        )
    )
    before = dict(load(path_of(family)).parameters())
    expected = {}
    for part in ("unet", "text_encoder"):
        for name, module in getattr(pipe, part).named_modules():
            if hasattr(module, "lora_A"):
                change = module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight
                expected[f"{part}.{name}.weight"] = before[f"{part}.{name}.weight"] + change
    pipe.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(pipe.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(pipe.text_encoder),
        **_collate_lora_metadata({"unet": pipe.unet, "text_encoder": pipe.text_encoder}),
    )
    fused = dict(load(path_of(family), tmp_path).parameters())
    for name, weight in expected.items():
        assert torch.allclose(fused[name], weight, atol=1e-5), name


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


def test_a_strength_that_leaves_the_range_of_float16(tmp_path: Path):
    save_file(lora(), tmp_path / "lora.safetensors")
    adapter = AdapterConfig(path=str(tmp_path), weight=1e7)  # 0.02 in every weight
    with pytest.raises(ConfigError, match=r"at the strength 10000000.0 it leaves the range of float16 in unet\."):
        load_model(ModelConfig(path=tiny.path(), adapters=[adapter], dtype=DType.float16), CPU)
