"""`lacuna export`: the folder is the model that a run used, bit for bit, and says what it does not hold."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline

from pipeline.cli import main
from pipeline.config import load_config
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Device
from pipeline.erasure.methods.uce import UCE, UCEOptions
from pipeline.erasure.recipe import compile_recipe
from pipeline.models.load import load_model
from pipeline.prompts import Plan, open_source
from pipeline.session import Session, prepare
from pipeline.workshop.export import export
from tests import tiny
from tests.erasure import families
from tests.erasure.conftest import KEEP

pytestmark = pytest.mark.slow

UCE_STEP = {"method": "uce", "options": {"keep": KEEP, "templates": ["{}", "a {}", "a photo of a {}"]}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    settings = {
        "model": {"dtype": "float32", "path": tiny.path(), "scheduler": "EulerDiscreteScheduler"},
        "erasure": {
            "concepts": [{"name": "cat", "aliases": ["kitten"], "anchor": "dog", "preserve": ["tiger", "lion"]}],
            "recipe": [UCE_STEP],
        },
        "prompts": {"template": "a {animal}", "values": {"animal": ["cat", "dog"]}},
        "generation": {"steps": 2, "size": [32, 32], "compile": "none", "batch_size": 2},
        "output": {"path": str(tmp_path / "corpus")},
        "cluster": {"backend": "local", "device": "cpu"},
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def exported(folder: Path) -> DiffusionPipeline:
    return DiffusionPipeline.from_pretrained(folder)


def same_weights(pipe, model) -> bool:
    return all(
        torch.equal(one, other)
        for part in ("unet", "vae", "text_encoder")
        for one, other in zip(
            getattr(pipe, part).state_dict().values(), getattr(model.pipe, part).state_dict().values(), strict=True
        )
    )


def test_folder_holds_the_models_of_a_run_and_everything_besides(path: Path, tmp_path: Path, capsys):
    folder = tmp_path / "exports" / "no-cat"
    assert main(["export", str(path), str(folder)]) == 0
    assert "StableDiffusionPipeline with uce folded in" in capsys.readouterr().out
    config = load_config(path)
    model = load_model(config.model, torch.device("cpu"))
    original = load_model(config.model, torch.device("cpu"))
    compile_recipe(config, model)
    pipe = exported(folder)
    assert same_weights(pipe, model)
    assert not same_weights(pipe, original)
    assert pipe.tokenizer("a cat by the sea").input_ids == original.pipe.tokenizer("a cat by the sea").input_ids
    assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler"
    assert pipe.scheduler.config.beta_end == original.pipe.scheduler.config.beta_end
    assert {**pipe.unet.config} | {"_name_or_path": ""} == {**original.pipe.unet.config} | {"_name_or_path": ""}
    assert not list(folder.rglob("*.bin"))
    assert [p.name for p in folder.parent.iterdir()] == ["no-cat"]  # nothing temporary is left
    card = (folder / "README.md").read_text()
    assert original.revision in card
    assert "| cat | kitten | dog | tiger, lion |" in card
    assert "sha256" in card
    # It is a model like any other: it can be configured and erased further.
    assert load_model(load_config(path, [f"model.path={folder}"]).model, torch.device("cpu")).revision


@pytest.mark.parametrize("family", ["sdxl", "sd3", "sd3-without-t5", "flux"])
def test_the_cards_snippet_loads_every_family_bit_for_bit(family: str, tmp_path: Path):
    config = families.config(family, families.step("uce", **families.PAIRS))
    config.output.path, config.cluster.device = str(tmp_path / "corpus"), Device.cpu
    export(config, tmp_path / "erased")
    (snippet,) = re.findall(r"```python\n(.*?)```", (tmp_path / "erased" / "README.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(snippet.replace("FOLDER", str(tmp_path / "erased")), found)  # as a reader would
    loaded = {
        f"{part}.{name}": tensor
        for part, module in found["pipe"].components.items()
        if isinstance(module, torch.nn.Module)
        for name, tensor in module.named_parameters()
    }
    model = families.load(family)
    edited = UCE(model, concepts_of(config.erasure), UCEOptions(**families.PAIRS), label="uce").edit()
    original = dict(model.parameters())
    assert loaded.keys() == original.keys()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, edited.get(name, original[name])), name
    assert not any(torch.equal(tensor, original[name]) for name, tensor in edited.items())


def test_a_corpus_that_was_begun_gives_its_pinned_tensors(path: Path, tmp_path: Path, capsys):
    config = load_config(path)
    record = prepare(Session(config, device="cpu"), Plan.build(config, open_source(config.prompts)).summary())
    assert main(["export", str(path), str(tmp_path / "one")]) == 0
    assert f"as pinned in {config.output.path}" in capsys.readouterr().out

    model = load_model(config.model, torch.device("cpu"))
    Session(config).pinned_recipe(record).apply(model)
    assert same_weights(exported(tmp_path / "one"), model)
    # Another recipe than the corpus' is solved anew, though it has the same place for its output.
    assert main(["export", str(path), str(tmp_path / "two"), "erasure.recipe[0].options.lamb=0.4"]) == 0
    assert "as pinned" not in capsys.readouterr().out


def test_what_acts_while_sampling_is_refused_or_named(path: Path, tmp_path: Path, capsys):
    settings = yaml.safe_load(path.read_text())
    settings["erasure"]["recipe"].append({"method": "cease"})
    path.write_text(yaml.safe_dump(settings))
    folder = tmp_path / "export"
    assert main(["export", str(path), str(folder)]) == 2
    refusal = capsys.readouterr().err
    assert "cease can act while sampling alone" in refusal
    assert "--edits-only" in refusal
    assert not folder.exists()
    assert main(["export", str(path), str(folder), "--edits-only"]) == 0
    assert "not in it, because they act while sampling: cease" in capsys.readouterr().out
    assert "**Not in this folder**: cease" in (folder / "README.md").read_text()

    settings["erasure"]["recipe"] = [{"method": "cease"}]
    path.write_text(yaml.safe_dump(settings))
    assert main(["export", str(path), str(tmp_path / "other"), "--edits-only"]) == 2
    assert "no step of it edits weights" in capsys.readouterr().err


def test_a_folder_that_is_not_empty(path: Path, tmp_path: Path, capsys):
    assert main(["export", str(path), str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["export", str(path), str(path)]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_tool_that_names_no_dtype_gets_parts_that_go_together(path: Path, tmp_path: Path, dtype: str):
    """transformers loads what its config says, diffusers float32."""
    config = load_config(path, [f"model.dtype={dtype}"])
    export(config, tmp_path / "erased")
    pipe = exported(tmp_path / "erased")
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert {part.dtype for part in parts} == {torch.float32}
    assert pipe("a cat", num_inference_steps=1, height=32, width=32, output_type="np").images.shape == (1, 32, 32, 3)
