"""`batch_size: auto`: the largest batch that fits, found once before a run and then fixed for good."""

from dataclasses import replace

import torch

from pipeline.config.schema import Config
from pipeline.erasure.recipe import active_methods
from pipeline.generation.engine import Engine
from pipeline.models.load import Model
from pipeline.prompts import unplanned

LARGEST = 256
ON_CPU = 32  # memory does not bound a CPU's batch, and from here on throughput no longer grows with it
SPARE = 2  # the probe runs at twice the size it settles on: a later batch that fails costs a shard


def probe_batch_size(config: Config, model: Model) -> int:
    """Return a batch size, a power of two, for *model* with its edits applied.

    On a GPU sizes are doubled until memory runs out. Raises ``torch.OutOfMemoryError`` where one picture does not fit.
    """
    if model.device.type == "cpu":
        return ON_CPU
    size = 1
    while size < LARGEST * SPARE:
        try:
            _generate_once(config, model, size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            torch.cuda.empty_cache()
            return max(1, size // 2 // SPARE)
        size *= 2
    return LARGEST


def _generate_once(config: Config, model: Model, size: int) -> None:
    generation = replace(config.generation, batch_size=size, steps=2)
    engine = Engine(replace(config, generation=generation), model, active_methods(config, model))
    width, height = generation.pixels
    for _ in engine.generate(unplanned([("a", 0)], width, height)):
        pass
