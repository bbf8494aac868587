"""What the tests of erasure on SDXL, SD3 and FLUX share: an erasure list, recipes, pictures of a batch of prompts."""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.config.schema import ConceptConfig, Config, DType, ErasureConfig, ModelConfig, StepConfig
from pipeline.erasure.recipe import CompiledRecipe, active_methods, compile_recipe
from pipeline.generation.engine import Batch, Engine
from pipeline.models.load import Model, load_model
from tests import tiny, tiny_families

CONCEPT = ConceptConfig(name="cat", aliases=["kitten"], anchor="dog", preserve=["tiger", "lion"])
# Texts in the tiny tokenizers' own words: in a few dimensions an edit spills over to what it was not told to keep.
KEEP = ["a house by a road", "a bowl of fruit", "two people talking", "mountains at night", "a tree", "the red car"]
PAIRS = {"keep": KEEP, "templates": ["{}", "a {}", "a photo of a {}"]}


def step(method: str, **options) -> StepConfig:
    return StepConfig(method=method, options=options)


def config(family: str, *steps: StepConfig, concept: ConceptConfig = CONCEPT) -> Config:
    erasure = ErasureConfig(concepts=[concept], recipe=list(steps))
    result = tiny.config(tiny_families.path(family), erasure=erasure)
    result.generation.guidance = 3.5
    return result


def load(family: str, dtype: DType = DType.float32) -> Model:
    return load_model(ModelConfig(path=tiny_families.path(family), dtype=dtype), torch.device("cpu"))


def engine(
    family: str, *steps: StepConfig, concept: ConceptConfig = CONCEPT, dtype: DType = DType.float32
) -> tuple[Engine, CompiledRecipe]:
    """An engine with the recipe of *steps*, compiled on the model that it samples with."""
    settings, model = config(family, *steps, concept=concept), load(family, dtype)
    settings.model.dtype = dtype
    recipe = compile_recipe(settings, model)
    return Engine(settings, model, active_methods(settings, model)), recipe


def draw(with_engine: Engine, prompts: Sequence[str], seeded: Sequence[str] | None = None) -> Batch:
    """Draw one batch; a picture's seed is that of its prompt (or of the text *seeded*), wherever it stands."""
    seeds = [sum(map(ord, text)) for text in seeded or prompts]
    samples = [tiny.sample(i, prompt, seed=seed) for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))]
    (batch,) = with_engine.generate(samples)
    assert batch.faults == [None] * len(prompts)
    return batch


def apart(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())
