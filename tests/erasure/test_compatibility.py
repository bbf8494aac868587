"""A recipe that the model's family cannot do is refused by every command before any weights are read.

The weights of the models here cannot be read: whoever tried would say so in another line.
"""

import shutil
from pathlib import Path

import pytest

from pipeline.cli import main
from tests import hub, tiny_families

CONFIG = """
model: {{path: {model}, dtype: float32}}
erasure:
  concepts: [{{name: cat, anchor: dog}}]
  recipe: {recipe}
prompts: {{source: prompts.txt}}
generation: {{steps: 2, size: [32, 32], compile: none, batch_size: 4}}
output: {{path: {output}}}
cluster: {{backend: local, device: cpu}}
"""
JOINT = (
    "its text tokens change with the image in every layer and step (joint attention), so there are no keys and values "
    "of a prompt to work on; cease_joint steers joint attention"
)
ON_SD3 = "expected one of uce, weights, semantic_surgery, rece, cease_joint, sld, negative_prompt"
CEASE = f"erasure.recipe[1].method: 'cease' does not work on Stable Diffusion 3: {JOINT}; {ON_SD3}"
ONLINE = [  # what may ask the hub; the words before the config and behind it
    (["plan"], []),
    (["plan", "--no-measure"], []),
    (["preview"], []),
    (["explain"], ["a cat by a road"]),
    (["finetune"], []),
    (["export"], ["erased"]),
    (["run"], []),
]


def broken(family: str, folder: Path) -> Path:
    """A tiny pipeline of *family* whose weights are no weights."""
    shutil.copytree(tiny_families.path(family), folder)
    weights = list(folder.rglob("*.safetensors"))
    assert weights
    for path in weights:
        path.write_text("no weights")
    return folder


@pytest.fixture(scope="module")
def sd3(tmp_path_factory) -> Path:
    return broken("sd3", tmp_path_factory.mktemp("models") / "sd3")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """Where the commands are given, with prompts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a cat and a dog\n" * 4)
    return tmp_path


def write(folder: Path, model: Path | str, recipe: str) -> str:
    (folder / "config.yaml").write_text(CONFIG.format(model=model, recipe=recipe, output=folder / "corpus"))
    return "config.yaml"


def refusal(words: list[str], capsys) -> str:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.strip().removeprefix("lacuna: ")


@pytest.mark.parametrize(("command", "more"), [*ONLINE, (["show"], [])])
def test_every_command_refuses_a_method_of_another_family(command, more, sd3, folder, capsys):
    config = write(folder, sd3, "[{method: uce}, {method: cease}]")
    assert refusal([*command, config, *more], capsys) == CEASE
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "prompts.txt"]


def test_a_recipe_that_fits_gets_as_far_as_the_weights(sd3, folder, capsys):
    config = write(folder, sd3, "[{method: uce}, {method: cease_joint}]")
    assert "cannot be loaded from safetensors" in refusal(["explain", config, "a cat"], capsys)
    assert main(["plan", "--no-measure", config]) == main(["show", config]) == 0


def test_a_run_on_ray_is_refused_before_a_cluster_is_joined(sd3, folder, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # nobody is there: to join it fails
    config = write(folder, sd3, "[{method: uce}, {method: cease}]")
    assert refusal(["run", config, "cluster.backend=ray"], capsys) == CEASE


@pytest.mark.parametrize("command", [["plan", "--no-measure"], ["show"]])
@pytest.mark.parametrize(
    ("family", "step", "message"),
    [
        ("flux", "{method: sld}", "'sld' does not work on FLUX.1: its guidance is distilled into the weights"),
        ("sd3", "{method: uce, options: {lamda: 1}}", "options.lamda: uce has no such option (did you mean 'lamb'?)"),
        ("sd3", "{method: sld, options: {warmup: 2}}", "'sld' cannot work here: a warmup of 2 steps leaves none of"),
        ("diorama", "{method: cease_joint}", "'cease_joint' does not work on Stable Diffusion 1.x/2.x: its text"),
    ],
)
def test_what_needs_no_model_is_checked_without_one(command, family, step, message, folder, capsys, tmp_path):
    model = family if family == "diorama" else broken(family, tmp_path / "model")
    assert message in refusal([*command, write(folder, model, f"[{step}]")], capsys)


@pytest.mark.parametrize(("command", "more"), ONLINE)
def test_of_a_model_on_the_hub_the_index_at_its_revision_is_enough(command, more, folder, capsys, monkeypatch):
    hub.use(folder / "cache", monkeypatch)
    hub.put(folder / "cache", "someone/model", "main", "StableDiffusionPipeline")
    hub.put(folder / "cache", "someone/model", "v3", "StableDiffusion3Pipeline")
    config = write(folder, "someone/model", "[{method: uce}, {method: cease}]")
    assert refusal([*command, config, *more, "model.revision=v3"], capsys) == CEASE


def test_show_asks_no_hub_and_for_no_module_of_the_users(folder, sd3, capsys, monkeypatch):
    hub.use(folder / "cache", monkeypatch)
    config = write(folder, "someone/model", "[{method: cease}]")
    assert main(["show", config]) == 0
    assert "method: cease" in capsys.readouterr().out
    assert "is not here, and HF_HUB_OFFLINE keeps from" in refusal(["plan", "--no-measure", config], capsys)
    config = write(folder, sd3, '[{method: "theirs.methods:Mine"}]')
    assert main(["show", config]) == 0
    capsys.readouterr()
    assert "there is no module 'theirs.methods'" in refusal(["plan", "--no-measure", config], capsys)


def test_an_evaluation_refuses_it_by_the_recipes_name(sd3, folder, capsys):
    (folder / "evaluation.yaml").write_text(
        f"model: {{path: {sd3}}}\ntasks: {{cat: {{concepts: [{{name: cat}}]}}}}\n"
        "recipes: {edit: [{method: uce}], mask: [{method: uce}, {method: cease}]}\n"
    )
    message = refusal(["evaluate", "erasure", "evaluation.yaml", "-o", "out"], capsys)
    assert message == CEASE.replace("erasure.recipe", "recipes.mask")
    assert not (folder / "out").exists()
