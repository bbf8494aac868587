"""The attack by embeddings finds the concept behind UCE's edit, on the diorama and by detector B."""

import json

import pytest
import torch

from pipeline.cli import main
from pipeline.concepts.concept import Concept
from pipeline.config.schema import ModelConfig
from pipeline.erasure.method import Prompts
from pipeline.erasure.methods.uce import UCE, UCEOptions
from pipeline.erasure.tensors import apply_tensors
from pipeline.evaluation.attacks.embedding import EmbeddingAttack, token_projections
from pipeline.evaluation.erasure.config import load_evaluation
from pipeline.evaluation.erasure.evaluate import evaluate_erasure
from pipeline.models.load import load_model

CAT = Concept(name="cat", aliases=("kitten",), anchor="dog", preserve=("tiger",))
CONFIG = """
model: {path: diorama}
tasks:
  two objects:
    concepts:
      - {name: cat, aliases: [kitten, tabby], anchor: dog, preserve: [tiger, dog]}
      - {name: church, aliases: [chapel], preserve: [house, castle]}
recipes:
  uce: [{method: uce, options: {lamb: 2.0}}]
generation: {steps: 6, batch_size: 2}
cell: 1
attack: {embeddings: 2}
timing: {repeats: 0}
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "attacked.yaml"
    path.write_text(CONFIG)
    return path


def test_what_it_hands_in_is_nearest_to_the_concept_under_the_edited_weights():
    model = load_model(ModelConfig(path="diorama"), torch.device("cpu"))
    original = {p.name: p.weight.clone() for p in token_projections(model)}
    apply_tensors(model, UCE(model, [CAT], UCEOptions(), label="uce").edit())
    plain = model.family.encode(["a cat on the beach"])
    reg = 0.01
    prompts = Prompts(("a cat on the beach",), ("",), plain, None)
    found = EmbeddingAttack(model, [CAT], original, reg).condition(prompts).positive.embeds.double()

    total = sum(w.double().square().sum() for w in original.values())

    def objective(e):
        far = sum(
            (e @ p.weight.double().T - plain.embeds.double() @ original[p.name].double().T).square().sum()
            for p in token_projections(model)
        )
        return far + reg * total / e.shape[-1] * (e - plain.embeds.double()).square().sum()

    least = objective(found)
    assert least < 0.5 * objective(plain.embeds.double())
    rng = torch.Generator().manual_seed(0)
    for size in (1e-2, 1e-1):  # a minimum: no step away from it is better
        step = size * torch.randn(found.shape, generator=rng, dtype=found.dtype)
        assert least < objective(found + step)
        assert least < objective(found - step)


@pytest.mark.slow
def test_it_succeeds_against_plain_uce_in_half_of_the_cases_and_goes_on_with_more(config_file, tmp_path):
    def leaks():
        recipes = json.loads((tmp_path / "scores.json").read_text())["tasks"]["two objects"]["recipes"]
        return {name: recipe["leak"] for name, recipe in recipes.items()}

    evaluate_erasure(load_evaluation(config_file), tmp_path)
    assert leaks()["uce"]["embeddings"]["trials"] == 2
    printed = evaluate_erasure(load_evaluation(config_file, ["attack.embeddings=4"]), tmp_path)
    assert "embeddings" in printed
    found = leaks()
    assert found["uce"]["embeddings"]["trials"] == found["none"]["embeddings"]["trials"] == 4
    assert found["none"]["embeddings"]["hits"] == 4
    # B is sure of each: both cats are there (1.00), neither church is (0.00).
    assert found["uce"]["embeddings"]["hits"] == 2
    # Nothing is by the concepts' own words: it is the attack that shows them.
    assert found["uce"]["plain"]["hits"] + found["uce"]["alias"]["hits"] == 0
    assert "attack by embeddings made for the edited weights" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(("override", "message"), [
    ("attack.embeddings=-1", "attack.embeddings: is -1; expected at least 0"),
    ("attack.reg=0", "attack.reg: is 0; expected above 0"),
])  # fmt: skip
def test_bad_settings_are_one_line(config_file, tmp_path, capsys, override, message):
    assert main(["evaluate", "erasure", str(config_file), override, "-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
