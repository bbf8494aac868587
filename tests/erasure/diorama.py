"""The built-in model in float32, loaded once for all tests of edits, and recipes compiled on it."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import save

from pipeline.config.concepts import concepts_of
from pipeline.config.schema import ConceptConfig, Config, DType, ErasureConfig, ModelConfig, StepConfig
from pipeline.erasure.recipe import CompiledRecipe, compile_recipe
from pipeline.erasure.steps import read_steps
from pipeline.erasure.tensors import apply_tensors
from pipeline.models.load import Model, load_model
from tests import tiny

CAT = ConceptConfig(name="cat", aliases=["kitten"], anchor="dog", preserve=["tiger", "lion"])
GUN = ConceptConfig(name="gun", aliases=["pistol"], preserve=["knife", "sword"])


@functools.cache
def _loaded() -> Model:
    return load_model(ModelConfig(path="diorama", dtype=DType.float32), torch.device("cpu"))


def config(method: str, concepts: Sequence[ConceptConfig], **options: Any) -> Config:
    steps = [StepConfig(method=method, options=options)]
    return tiny.config("diorama", erasure=ErasureConfig(concepts=list(concepts), recipe=steps))


def compiled(method: str, *concepts: ConceptConfig, **options: Any) -> CompiledRecipe:
    """Compile one step on the diorama, self-check included, and leave the model as it was."""
    model = _loaded()
    before = {p.name: p.weight.clone() for p in model.family.text_projections()}
    try:
        return compile_recipe(config(method, concepts, **options), model)
    finally:
        apply_tensors(model, before)


def edited(method: str, *concepts: ConceptConfig, **options: Any) -> bytes:
    """Return what one step makes of the diorama's weights, as it would be saved, without the self-check."""
    asked = config(method, concepts, **options).erasure
    (step,) = read_steps(asked.recipe, concepts_of(asked), _loaded().family)
    return save(step.build(_loaded()).edit())


def figures(recipe: CompiledRecipe) -> dict[str, dict[str, float]]:
    """Return the self-check's figures by concept."""
    return recipe.record["steps"][0]["selfcheck"]


def tensors(recipe: CompiledRecipe) -> bytes:
    """Return the file of a recipe of one edit."""
    (data,) = recipe.tensors.values()
    return data
