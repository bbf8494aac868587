"""`generation.batch_size: auto`: the batch that draws a shard soonest, found once before a run and then fixed for good.

On a GPU sizes are doubled and each is timed, until memory ends or larger ones bring nothing. Larger than it need be a
batch is not made: where the device is full already it costs memory and padding and brings nothing. On a CPU nothing is
timed: a batch of ``ON_CPU`` is full, and what it takes would depend on what else the machine does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import NamedTuple

import torch

from pipeline.config.schema import Config
from pipeline.erasure.recipe import active_methods
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.models.load import Model
from pipeline.prompts import unplanned

LARGEST = 1024
ON_CPU = 32  # memory does not bound a CPU's batch, and from here on throughput no longer grows with it
SPARE = 2  # times a batch that memory must have room for: one that fails later costs a shard
NEAR = 0.05  # a batch of twice the size must draw so much faster
FLAT = 2  # doublings in a row that do not, after which no more are tried
STEPS = 4  # of denoising that are timed


class Timed(NamedTuple):
    """How long a batch of so many pictures takes the device."""

    size: int
    seconds: float


def probe_batch_size(config: Config, model: Model, pictures: Sequence[int], size: tuple[int, int]) -> int:
    """Return the batch size for shards of so many *pictures* of each size, of which *size* is the largest, drawn by
    *model* with its edits applied.

    Raises ``ConfigError`` where the device has no memory for one picture.
    """
    if model.device.type == "cpu":
        return evenly(pictures, ON_CPU)
    try:
        timed = time_sizes(
            lambda batch: _seconds(config, model, batch, size), SPARE * min(LARGEST, _power(max(pictures)))
        )
    except torch.OutOfMemoryError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"generation.batch_size: not one picture of {size[0]}x{size[1]} fits: {reason}") from error
    torch.cuda.empty_cache()  # of what was too large
    return soonest(timed, pictures)


def evenly(pictures: Sequence[int], most: int) -> int:
    """Return the smallest batch in which *pictures*, so many of each size, take no more batches than of *most*."""
    least = _count(pictures, most)
    return next(size for size in range(1, most + 1) if _count(pictures, size) == least)


def time_sizes(seconds: Callable[[int], float], most: int) -> list[Timed]:
    """Time batches of 1, 2, 4, ... pictures, up to *most*, until one raises ``torch.OutOfMemoryError``, or until
    ``FLAT`` in a row are no faster than the best of before. What a single picture raises is raised."""
    timed: list[Timed] = []
    best, flat, size = 0.0, 0, 1
    while size <= most and flat < FLAT:
        try:
            timed.append(Timed(size, seconds(size)))
        except torch.OutOfMemoryError:
            if not timed:
                raise
            break
        pace = size / timed[-1].seconds
        flat = 0 if pace > best * (1 + NEAR) else flat + 1
        best = max(best, pace)
        size *= 2
    return timed


def soonest(timed: Sequence[Timed], pictures: Sequence[int]) -> int:
    """Return the smallest batch that draws *pictures*, so many of each size, about as soon (``NEAR``) as the best,
    padding included, of those for ``SPARE`` times which there was memory; where it was for one picture alone, 1."""
    largest = max(size for size, _ in timed)
    takes = {size: _count(pictures, size) * seconds for size, seconds in timed if size * SPARE <= largest}
    least = min(takes.values(), default=0.0)
    return min((size for size, seconds in takes.items() if seconds <= least * (1 + NEAR)), default=1)


def _count(pictures: Sequence[int], batch_size: int) -> int:
    """Return how many batches *pictures*, so many of each size, take."""
    return sum(math.ceil(count / batch_size) for count in pictures)


def _power(pictures: int) -> int:
    """Return the least power of two that is not below *pictures*."""
    return 1 << (pictures - 1).bit_length()


def _seconds(config: Config, model: Model, batch_size: int, size: tuple[int, int]) -> float:
    """Time one batch, of which every picture is concerned by the erasure."""
    steps = min(STEPS, config.generation.steps)
    generation = replace(config.generation, batch_size=batch_size, steps=steps, size=list(size))
    methods = active_methods(config, model)
    engine = Engine(replace(config, generation=generation), model, methods)
    names = [concept.name for method in methods for concept in method.concepts] or ["picture"]
    prompts = [f"a {name}" for name in islice(cycle(names), batch_size)]
    samples = unplanned(((prompt, i) for i, prompt in enumerate(prompts)), *size)
    seconds = 0.0
    for _ in range(2):  # kernels are chosen and memory is taken by the first
        seconds = sum(batch.device_seconds for batch in engine.generate(samples))
    return seconds
