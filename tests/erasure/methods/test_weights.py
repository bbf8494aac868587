"""Ready-made checkpoints in every layout that is taken, what is said of those that do not fit, and LoRAs."""

from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save, save_file

from pipeline.concepts.concept import Concept
from pipeline.config.schema import StepConfig
from pipeline.erasure.methods.uce import UCE, UCEOptions
from pipeline.erasure.methods.weights import Weights, WeightsOptions
from pipeline.erasure.recipe import compile_recipe
from pipeline.erasure.tensors import apply_tensors
from pipeline.errors import ConfigError
from pipeline.models.layouts import compvis_names
from tests import tiny
from tests.erasure import families
from tests.erasure.conftest import KEEP, config

CAT = Concept(name="cat", anchor="dog", preserve=("tiger",))
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"


def edit(model, path, **options) -> dict[str, torch.Tensor]:
    return Weights(model, (CAT,), WeightsOptions(path=str(path), **options), label="weights").edit()


@pytest.fixture
def erased(model) -> dict[str, torch.Tensor]:
    """UCE's edit, by names without ``unet.``, as checkpoints are published."""
    options = UCEOptions(keep=KEEP, templates=["{}", "a {}"])
    solved = UCE(model, (CAT,), options, label="uce").edit()
    return {name.removeprefix("unet."): tensor for name, tensor in solved.items()}


@pytest.mark.parametrize("layout", ["plain", "prefixed", "compvis", "compvis without prefix"])
def test_layouts(model, erased, layout, tmp_path: Path):
    compvis = {ours: theirs for theirs, ours in compvis_names(model.pipe.unet).items()}
    rename = {
        "plain": lambda name: name,
        "prefixed": lambda name: f"unet.{name}",
        "compvis": lambda name: f"model.diffusion_model.{compvis[name]}",
        "compvis without prefix": lambda name: compvis[name],
    }[layout]
    path = tmp_path / "erased.safetensors"
    save_file({rename(name): tensor for name, tensor in erased.items()}, path)
    taken = edit(model, path)
    assert {name.removeprefix("unet."): tensor.tolist() for name, tensor in taken.items()} == {
        name: tensor.tolist() for name, tensor in erased.items()
    }


def test_compvis_names_are_those_that_diffusers_converts(model):
    unet = model.pipe.unet
    names = compvis_names(unet)
    checkpoint = {
        f"model.diffusion_model.{theirs}": torch.full(unet.get_parameter(ours).shape, float(i))
        for i, (theirs, ours) in enumerate(names.items())
    }
    converted = convert_ldm_unet_checkpoint(dict(checkpoint), {**unet.config})
    assert set(converted) == set(names.values())
    for theirs, ours in names.items():
        assert converted[ours].flatten()[0] == checkpoint[f"model.diffusion_model.{theirs}"].flatten()[0]


def test_what_the_model_has_already_is_left_out(model, erased, tmp_path: Path):
    whole = {**{name: parameter.clone() for name, parameter in model.pipe.unet.named_parameters()}, **erased}
    save_file(whole, tmp_path / "unet.safetensors")
    assert set(edit(model, tmp_path)) == {f"unet.{name}" for name in erased}


def test_in_a_recipe_it_is_checked_and_pinned(model, erased, tmp_path: Path):
    path = tmp_path / "erased.safetensors"
    save_file(erased, path)
    step = StepConfig(method="weights", options={"path": str(path)})
    recipe = compile_recipe(config(step), model)
    record = recipe.record["steps"][0]
    assert record["file"] == f"00-weights-{record['sha256'][:16]}.safetensors"
    assert record["selfcheck"]["cat"]["target_shift"] > 0.1
    name = f"{LAYER}.to_k.weight"
    assert torch.equal(model.pipe.unet.get_parameter(name), erased[name])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({f"{LAYER}.to_z.weight": (32, 128)}, "has no tensor in common with this model"),
        (
            {f"{LAYER}.to_k.weight": (32, 128), f"{LAYER}.to_kk.weight": (32, 128)},
            f"1 of 2 tensors have no place in this model, such as {LAYER}.to_kk.weight (did you mean '{LAYER}.to_k",
        ),
        ({f"{LAYER}.to_k.weight": (32, 64)}, "to_k.weight is (32, 64), but this model's is (32, 128)"),
        ({"cond_stage_model.x": (1,), f"{LAYER}.to_k.weight": (32, 128)}, "is a whole checkpoint"),
        ({}, "has no tensor in common"),
    ],
)
def test_files_that_do_not_fit(model, state, message, tmp_path: Path):
    path = tmp_path / "bad.safetensors"
    save_file({name: torch.ones(shape) for name, shape in state.items()}, path)
    with pytest.raises(ConfigError) as caught:
        edit(model, path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_used(model, tmp_path: Path):
    name = f"{LAYER}.to_k.weight"
    save_file({name: model.pipe.unet.get_parameter(name).clone()}, tmp_path / "same.safetensors")
    with pytest.raises(ConfigError, match="changes nothing"):
        edit(model, tmp_path / "same.safetensors")
    save_file({name: torch.ones(32, 128)}, tmp_path / "full.safetensors")
    with pytest.raises(ConfigError, match="is no LoRA: the option scale"):
        edit(model, tmp_path / "full.safetensors", scale=0.5)
    save_file({name: torch.full((32, 128), torch.nan)}, tmp_path / "nan.safetensors")
    with pytest.raises(ConfigError, match=r"to_k\.weight has values that are not finite"):
        edit(model, tmp_path / "nan.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="no readable safetensors file"):
        edit(model, tmp_path / "broken.safetensors")
    (tmp_path / "old.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match="can run code"):
        edit(model, tmp_path / "old.pt")
    with pytest.raises(ConfigError, match=r"holds 4 \.safetensors files; name the one to use"):
        edit(model, tmp_path)
    with pytest.raises(ConfigError, match="path is missing"):
        WeightsOptions()


@pytest.mark.parametrize("layout", ["peft", "kohya"])
def test_lora_is_folded_and_leaves_the_model_alone(model, layout, tmp_path: Path):
    pipe = tiny.pipeline()
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["attn2.to_k"]))
    state = get_peft_model_state_dict(pipe.unet)
    down, up = state[f"{LAYER}.to_k.lora_A.weight"], state[f"{LAYER}.to_k.lora_B.weight"]
    if layout == "peft":
        pipe.save_lora_weights(tmp_path, unet_lora_layers=state, safe_serialization=True)
        strength = 1.0  # save_lora_weights keeps no alpha
    else:
        kohya = {}
        for name, tensor in state.items():
            stem, _, matrix = name.removesuffix(".weight").rpartition(".")
            key = f"lora_unet_{stem.replace('.', '_')}"
            kohya[f"{key}.{'lora_down' if matrix == 'lora_A' else 'lora_up'}.weight"] = tensor.contiguous()
            kohya[f"{key}.alpha"] = torch.tensor(4.0)
        save_file(kohya, tmp_path / "lora.safetensors")
        strength = 4.0 / 2  # alpha / rank
    before = {name: parameter.clone() for name, parameter in model.pipe.unet.named_parameters()}
    folded = edit(model, tmp_path, scale=0.5)
    assert dict(model.pipe.unet.named_parameters()).keys() == before.keys()  # nothing left wrapped
    assert all(torch.equal(before[name], parameter) for name, parameter in model.pipe.unet.named_parameters())
    assert set(folded) == {f"unet.{name}" for name in before if name.endswith("attn2.to_k.weight")}
    expected = before[f"{LAYER}.to_k.weight"] + 0.5 * strength * up @ down
    assert torch.allclose(folded[f"unet.{LAYER}.to_k.weight"], expected, atol=1e-5)
    apply_tensors(model, folded)  # fits


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
@pytest.mark.parametrize("kind", ["weights", "lora"])
def test_on_every_family_what_is_taken_is_what_was_saved_and_reloads_bit_equal(family, kind, tmp_path: Path):
    model = families.load(family)
    part = model.family.denoiser_name
    before = {name: parameter.clone() for name, parameter in model.parameters()}
    if kind == "weights":
        expected = UCE(model, (CAT,), UCEOptions(**families.PAIRS), label="uce").edit()
        save_file({name.removeprefix(f"{part}."): t for name, t in expected.items()}, tmp_path / "erased.safetensors")
        taken = edit(model, tmp_path)
    else:
        pipe = families.load(family).pipe
        target = "attn2.to_k" if family == "sdxl" else "add_k_proj"  # where text is heard
        lora = LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=[target])
        getattr(pipe, part).add_adapter(lora)
        state = get_peft_model_state_dict(getattr(pipe, part))
        pipe.save_lora_weights(tmp_path, **{f"{part}_lora_layers": state}, safe_serialization=True)
        layers = [name.removesuffix(".lora_A.weight") for name in state if name.endswith(".lora_A.weight")]
        expected = {
            f"{part}.{x}.weight": before[f"{part}.{x}.weight"]
            + 0.5 * state[f"{x}.lora_B.weight"] @ state[f"{x}.lora_A.weight"]
            for x in layers
        }
        taken = edit(model, tmp_path, scale=0.5)
    assert taken.keys() == expected.keys()
    assert all(torch.allclose(taken[name], tensor, rtol=0, atol=1e-6) for name, tensor in expected.items())
    assert all(torch.equal(before[name], parameter) for name, parameter in model.parameters())
    save_file(taken, tmp_path / "taken.safetensors")
    again = edit(families.load(family), tmp_path / "taken.safetensors")
    assert save(again) == save(taken)
    apply_tensors(model, again)
    assert all(torch.equal(taken.get(name, before[name]), parameter) for name, parameter in model.parameters())


def test_a_lora_with_matrices_that_have_no_place(model, tmp_path: Path):
    state = {f"unet.{LAYER}.to_k.lora_{x}.weight": torch.ones(shape) for x, shape in (("A", (2, 128)), ("B", (32, 2)))}
    state |= {f"unet.nowhere.{name}": tensor.clone() for name, tensor in list(state.items())}
    save_file(state, tmp_path / "lora.safetensors")
    before = model.pipe.unet.get_parameter(f"{LAYER}.to_k.weight").clone()
    with pytest.raises(ConfigError, match="does not fit this model as a LoRA"):
        edit(model, tmp_path / "lora.safetensors")
    assert torch.equal(model.pipe.unet.get_parameter(f"{LAYER}.to_k.weight"), before)
