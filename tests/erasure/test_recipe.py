"""A recipe is solved once and pinned: whoever loads its bytes has the same weights, and changed bytes are refused."""

from typing import Any

import pytest
import torch

from pipeline.config.schema import StepConfig
from pipeline.erasure.recipe import CompiledRecipe, active_methods, compile_recipe
from pipeline.errors import ConfigError, CorpusError
from pipeline.models.load import Model, load_model
from tests import tiny
from tests.erasure.conftest import config, uce_step


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {p.name: p.weight.clone() for p in model.family.text_projections()}


@pytest.fixture(scope="module")
def compiled() -> tuple[CompiledRecipe, dict[str, torch.Tensor]]:
    """UCE and then CEASE, and the weights of the model on which they were solved."""
    settings = config(uce_step(), StepConfig(method="cease"))
    model = load_model(settings.model, torch.device("cpu"))
    return compile_recipe(settings, model), weights(model)


def test_the_record_says_what_was_done(compiled: tuple[CompiledRecipe, Any]) -> None:
    edit, steer = compiled[0].record["steps"]
    assert (edit["label"], edit["method"], edit["concepts"]) == ("uce", "uce", ["cat"])
    assert edit["file"] in compiled[0].tensors
    assert edit["selfcheck"]["cat"]["erased"] > 0.1
    assert (steer["label"], "file" in steer) == ("cease", False)
    assert steer["options"]["false_alarms"] == 0.001


def test_a_worker_has_the_very_weights_that_were_checked(
    compiled: tuple[CompiledRecipe, dict[str, torch.Tensor]],
) -> None:
    recipe, solved = compiled
    read = CompiledRecipe.from_files(recipe.record, recipe.tensors.__getitem__)
    model = load_model(config().model, torch.device("cpu"))
    before = weights(model)
    read.apply(model)
    assert all(torch.equal(weight, solved[name]) for name, weight in weights(model).items())
    assert any(not torch.equal(weight, before[name]) for name, weight in weights(model).items())


def test_solving_twice_gives_the_same_bytes(compiled: tuple[CompiledRecipe, Any]) -> None:
    settings = config(uce_step(), StepConfig(method="cease"))
    again = compile_recipe(settings, load_model(settings.model, torch.device("cpu")))
    assert again.tensors == compiled[0].tensors
    assert again.record == compiled[0].record


def test_changed_bytes_are_refused(compiled: tuple[CompiledRecipe, Any]) -> None:
    recipe = compiled[0]
    with pytest.raises(CorpusError, match=r"its sha256 is not the one pinned in run.yaml"):
        CompiledRecipe.from_files(recipe.record, lambda name: recipe.tensors[name] + b"x")


def test_only_what_acts_while_sampling_is_built_again() -> None:
    settings = config(uce_step(), StepConfig(method="adavd"), StepConfig(method="adavd"))
    model = load_model(tiny.config(tiny.path()).model, torch.device("cpu"))
    assert [method.label for method in active_methods(settings, model)] == ["adavd", "adavd-2"]


def test_cease_may_stand_in_a_recipe_once() -> None:
    settings = config(StepConfig(method="cease"), StepConfig(method="cease"))
    model = load_model(tiny.config(tiny.path()).model, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"recipe\[1\].method: 'cease' is in the recipe already; expected it once"):
        active_methods(settings, model)
