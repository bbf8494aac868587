"""Batches of mixed prompts through an engine with a recipe, for tests of what acts while sampling."""

import torch

from pipeline.config.schema import ConceptConfig, DType, ErasureConfig, StepConfig
from pipeline.erasure.recipe import active_methods, compile_recipe
from pipeline.generation.engine import Batch, Engine
from pipeline.models.load import load_model
from tests import tiny

BATCH = ("a photo of a cat", "the red car", "two kittens and a tiger", "mountains at night")


def engine(
    *steps: StepConfig, concepts: tuple[str, ...] = ("cat",), guidance: float = 5.0, dtype: DType = DType.float32
) -> Engine:
    """An engine on the tiny model, with the edits of the recipe in place."""
    listed = [
        ConceptConfig(name=name, aliases=["kitten"] if name == "cat" else [], anchor="dog", preserve=["tiger"])
        for name in concepts
    ]
    config = tiny.config(tiny.path(), erasure=ErasureConfig(concepts=listed, recipe=list(steps)))
    config.generation.guidance, config.model.dtype = guidance, dtype
    model = load_model(config.model, torch.device("cpu"))
    compile_recipe(config, model)
    return Engine(config, model, active_methods(config, model))


def draw(engine: Engine, prompts: tuple[str, ...] = BATCH, order: tuple[int, ...] = (0, 1, 2, 3)) -> Batch:
    """Draw one batch of *prompts*, their seeds going along, in another *order* of the slots."""
    (batch,) = engine.generate([tiny.sample(i, prompts[i]) for i in order])
    return batch
