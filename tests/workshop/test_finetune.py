"""`lacuna finetune`: what it trains a run finds, killed it goes on, and what is damaged or diverges is one line."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file

from pipeline.cli import main
from pipeline.config import load_config
from pipeline.config.concepts import concepts_of
from pipeline.erasure.methods.esd.training import ESDTraining
from pipeline.erasure.recipe import compile_recipe
from pipeline.erasure.steps import read_steps
from pipeline.erasure.trained import checkpoint_path, result_path
from pipeline.errors import ConfigError
from pipeline.models.load import load_model
from pipeline.workshop.finetune import finetune
from tests import tiny
from tests.erasure.conftest import QUICK_ESD as QUICK

pytestmark = pytest.mark.slow


def write_config(folder: Path, **options) -> Path:
    path = folder / "config.yaml"
    settings = {
        "model": {"dtype": "float32", "path": tiny.path()},
        "erasure": {
            "concepts": [{"name": "cat", "anchor": "dog"}],
            "recipe": [{"method": "esd", "options": {**QUICK, **options}}],
            "finetuned": str(folder / "finetuned"),
        },
        "prompts": {"template": "a {animal}", "values": {"animal": ["cat", "dog"]}},
        "generation": {"steps": 2, "size": [32, 32], "compile": "none", "batch_size": 2},
        "output": {"path": str(folder / "corpus")},
        "cluster": {"backend": "local", "device": "cpu"},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def finetuned(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "finetuned").iterdir())


def test_finetune_then_run(tmp_path: Path, capsys):
    path = write_config(tmp_path)
    capsys.readouterr()
    assert main(["run", str(path)]) == 2
    refusal = capsys.readouterr().err
    assert "erasure.recipe[0]: esd has not been trained for this model, concepts and options" in refusal
    assert "run `lacuna finetune` with the same config first" in refusal
    assert len(refusal.strip().splitlines()) == 1

    assert main(["finetune", str(path)]) == 0
    printed = Path(capsys.readouterr().out.strip())
    assert [printed.name] == finetuned(tmp_path)
    trained = load_file(printed)
    assert {name.rpartition(".attn2.")[2] for name in trained} == {"to_k.weight", "to_v.weight"}

    # Any corpus of the same recipe finds it and pins it; another option does not.
    elsewhere = load_config(path, [f"output.path={tmp_path / 'other'}", "seed=1"])
    model = load_model(elsewhere.model, torch.device("cpu"))
    recipe = compile_recipe(elsewhere, model)
    pinned = load(recipe.tensors[recipe.record["steps"][0]["file"]])
    assert pinned.keys() == trained.keys()
    assert all(torch.equal(pinned[name], trained[name]) for name in pinned)
    other = load_config(path, ["erasure.recipe[0].options.lr=0.02"])
    with pytest.raises(ConfigError, match="has not been trained"):
        compile_recipe(other, load_model(other.model, torch.device("cpu")))


def test_killed_and_given_again_it_ends_with_the_same_bytes(tmp_path: Path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        settings = yaml.safe_load(write_config(folder).read_text())
        settings["erasure"]["recipe"][0]["method"] = "tests.erasure.fragile:FragileESD"
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    again = [str(cut / "config.yaml"), "--checkpoint-every", "3"]
    command = [sys.executable, "-m", "pipeline.cli", "finetune", *again]
    killed = subprocess.run(command, env={**os.environ, "KILL_AT": "5"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    (checkpoint,) = (cut / "finetuned").iterdir()
    assert checkpoint.suffix == ".checkpoint"
    # Iteration 3 is the first after the checkpoint: were it begun anew, this would kill.
    monkeypatch.setenv("KILL_AT", "2")
    assert main(["finetune", *again]) == 0
    monkeypatch.delenv("KILL_AT")
    assert main(["finetune", str(whole / "config.yaml")]) == 0
    (result,) = (whole / "finetuned").iterdir()
    assert finetuned(cut) == [result.name]
    assert (cut / "finetuned" / result.name).read_bytes() == result.read_bytes()


def test_a_recipe_without_training(tmp_path: Path, capsys):
    path = write_config(tmp_path)
    assert main(["finetune", str(path), "erasure.recipe=[]"]) == 2
    assert "no step of it has to be trained" in capsys.readouterr().err


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The checkpoint of a training that was stopped in its fifth iteration."""
    folder = tmp_path_factory.mktemp("stopped")

    def stop(self, i: int) -> float:
        if i == 4:
            raise KeyboardInterrupt
        return iterate(self, i)

    iterate = ESDTraining.iterate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ESDTraining, "iterate", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(load_config(write_config(folder)), checkpoint_every=3)
    (checkpoint,) = (folder / "finetuned").iterdir()
    return checkpoint


def wanted(config: Path) -> Path:
    """Return where the result of *config* is to lie."""
    loaded = load_config(config)
    model = load_model(loaded.model, torch.device("cpu"))
    return result_path(loaded, model, read_steps(loaded.erasure.recipe, concepts_of(loaded.erasure), model.family), 0)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def other_shapes(path: Path) -> None:
    rewrite(path, lambda tensors: {name: tensor[:1].clone() for name, tensor in tensors.items() if tensor.ndim})


def less(path: Path) -> None:
    rewrite(path, lambda tensors: dict(list(tensors.items())[2:]))


def others(path: Path) -> None:
    rewrite(path, lambda tensors: {f"elsewhere.{name}": tensor for name, tensor in tensors.items()})


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def rewrite(path: Path, change) -> None:
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    save_file(change({name: tensor.clone() for name, tensor in load_file(path).items()}), path, told)


def refusal(path: Path, command: str, capsys) -> str:
    capsys.readouterr()
    assert main([command, str(path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if ": cat:" not in line]  # the progress bar
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (torn, "is damaged ("),
        (lambda path: path.write_bytes(b""), "is damaged ("),
        (other_shapes, "is damaged ("),
        (less, "is missing, but "),
        (folder, "is damaged ("),
    ],
)
def test_a_damaged_checkpoint_is_one_line(damage, why, stopped: Path, tmp_path: Path, capsys):
    path, checkpoint = write_config(tmp_path), tmp_path / "finetuned" / stopped.name
    checkpoint.parent.mkdir()
    shutil.copy(stopped, checkpoint)
    damage(checkpoint)
    line = refusal(path, "finetune", capsys)
    assert str(checkpoint) in line
    assert why in line
    assert line.endswith("delete it to begin anew")
    assert finetuned(tmp_path) == [checkpoint.name]  # nothing written beside it


def test_a_checkpoint_of_other_options_is_not_taken_up(stopped: Path, tmp_path: Path, capsys):
    path = write_config(tmp_path, lr=0.001)
    checkpoint = checkpoint_path(wanted(path))
    assert checkpoint.name != stopped.name
    checkpoint.parent.mkdir()
    shutil.copy(stopped, checkpoint)
    assert f"is damaged (it was written for {stopped.stem}" in refusal(path, "finetune", capsys)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (torn, "is damaged ("),
        (other_shapes, "does not fit this model ("),
        (others, "(no such weight)"),
        (folder, "is damaged ("),
    ],
)
def test_a_damaged_result_is_one_line(damage, why, tmp_path: Path, capsys):
    path = write_config(tmp_path)
    result = wanted(path)
    result.parent.mkdir()
    model = load_model(load_config(path).model, torch.device("cpu"))
    save_file({p.name: p.weight * 1.1 for p in model.family.text_projections()}, result)
    damage(result)
    line = refusal(path, "run", capsys)
    assert str(result) in line
    assert why in line
    assert line.endswith("delete it and run `lacuna finetune` again")
    assert not [path for path in (tmp_path / "corpus").rglob("*") if path.is_file()]


def test_a_loss_that_diverges_writes_nothing(tmp_path: Path, capsys):
    line = refusal(write_config(tmp_path, lr=1e30), "finetune", capsys)
    assert line.endswith("esd: the loss is nan at iteration 1; lower the option lr, which is 1e+30")
    assert finetuned(tmp_path) == []


def test_weights_that_diverge_in_the_last_iteration_write_nothing(tmp_path: Path, capsys):
    path = write_config(tmp_path, iterations=1)
    path.write_text(path.read_text().replace("method: esd", "method: tests.erasure.fragile:OverflowingESD"))
    line = refusal(path, "finetune", capsys)
    assert "to_k.weight is not finite after iteration 0; lower the option lr, which is 0.002" in line
    assert finetuned(tmp_path) == []


def test_a_folder_that_cannot_be_is_refused_before_any_training(tmp_path: Path, monkeypatch, capsys):
    path = write_config(tmp_path)
    (tmp_path / "finetuned").write_text("a file")
    monkeypatch.setattr(ESDTraining, "iterate", None)  # would be called
    assert "erasure.finetuned: " in refusal(path, "finetune", capsys)
