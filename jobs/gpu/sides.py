"""The engine: eager and compiled, without erasure, and with an erasing method that is concerned with none or all."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.gpu.measure import busy_seconds, digest, matrix_product, operations, share_of_roofline, timed
from jobs.gpu.models import Kind
from jobs.gpu.pinned import Pinned
from jobs.gpu.prompts import CONCEPT, MIXED, NAMED, OTHER
from pipeline.config.schema import Config, ModelConfig, StepConfig
from pipeline.erasure.recipe import active_methods
from pipeline.generation.compilation import Compilation, release
from pipeline.generation.engine import Engine
from pipeline.models.load import Model
from pipeline.prompts import Sample, unplanned

BATCHES = 2  # that are timed
PRODUCTS = {"cuda": 8192, "cpu": 512}  # sides of the matrices by which the device's reach is measured
MODES = {"eager": False, "compiled": True}
Steps = Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Side:
    """Engines of one model. They share it, and each takes its processors from the one before: one works at a time."""

    def __init__(self, kind: Kind, tiny: bool, model: Model, known: Mapping[str, Any], code: Path):
        """*known* are figures of this family, also those taken meanwhile, *code* is the folder of what was compiled."""
        self.kind, self.asked, self.model, self.known = kind, kind.asked(tiny), model, known
        self.code = Pinned(code)
        self.opened: tuple[tuple[str, str], Engine] | None = None
        self.compiled: Compilation | None = None  # the last one
        self.plain: dict[str, np.ndarray] = {}  # by mode: the mixed batch without erasure

    def engine(self, recipe: str, mode: str) -> Engine:
        """Return the engine of a *recipe* ("none" or "erasing")."""
        if self.opened is None or self.opened[0] != (recipe, mode):
            self.opened = None
            config, model = self.configure(recipe), self.model
            release(model)
            compilation = None
            if MODES[mode]:
                how = model.family.compiled
                compilation = self.compiled = Compilation(model, how, self.code, say, earlier=self.compiled)
            self.opened = (recipe, mode), Engine(config, model, active_methods(config, model), compilation)
        return self.opened[1]

    def configure(self, recipe: str) -> Config:
        asked, config = self.asked, Config(model=ModelConfig(path="random"))
        generation = config.generation
        generation.size, generation.batch_size = [asked.pixels, asked.pixels], asked.batch
        generation.steps, generation.guidance = asked.steps, asked.guidance
        # What a text encoder of random weights makes of words is no measure of what they name: listed words alone do.
        deaf = {"unlisted": False} | ({"context": False} if self.kind.erasing == "cease" else {})
        config.erasure.concepts = [CONCEPT]
        config.erasure.recipe = [StepConfig(method=self.kind.erasing, options=deaf)] if recipe == "erasing" else []
        return config

    def samples(self, prompts: Sequence[str], batches: int = 1) -> list[Sample]:
        """*batches* batches that are the same."""
        size = self.asked.batch
        asked = ((prompts[i % size % len(prompts)], i % size) for i in range(batches * size))
        return unplanned(asked, self.asked.pixels, self.asked.pixels)

    def draw(self, engine: Engine, prompts: Sequence[str], batches: int = 1) -> list[np.ndarray]:
        return [batch.images for batch in engine.generate(self.samples(prompts, batches))]

    def rate(self, engine: Engine, prompts: Sequence[str]) -> tuple[float, list[np.ndarray]]:
        """Images per second from prompts to uint8 in host memory, and the batches, after one that warms up."""
        with timed(self.model.device) as seconds:
            drawn = self.draw(engine, prompts, BATCHES)
        return BATCHES * self.asked.batch / seconds[0], drawn

    def opening(self, recipe: str, mode: str, prompts: Sequence[str]) -> tuple[Engine, dict[str, float]]:
        """Return an engine that has drawn a first batch, and the seconds that compiling took of what its recipe and
        *prompts* are the first to come to, and how many kinds of it another process had compiled, and were loaded."""
        engine = self.engine(recipe, mode)
        before, loaded = engine.compiling_seconds, len(self.code.loaded)
        self.draw(engine, prompts)
        if not MODES[mode]:
            return engine, {}
        return engine, {
            "compile_seconds": engine.compiling_seconds - before,
            "loaded": len(self.code.loaded) - loaded,
        }


class Ours(Side):
    """One process for all but what a second process finds."""

    def steps(self) -> Steps:
        yield "reach", self.reach
        for mode in MODES:
            yield f"ours, {mode}", partial(self.ours, mode)
            yield f"cease none, {mode}", partial(self.erased, mode, OTHER)
            yield f"cease all, {mode}", partial(self.erased, mode, NAMED)
            yield f"unconcerned, {mode}", partial(self.unconcerned, mode)

    def reach(self) -> Mapping[str, Any]:
        """What one large matrix product reaches, and how much a picture asks for."""
        device = self.model.device
        reach = matrix_product(PRODUCTS[device.type], device, self.model.dtype)
        engine = self.engine("none", "eager")
        counted = operations(lambda: self.draw(engine, OTHER))
        return {"product_tflops": reach / 1e12, "tflop_per_image": counted / self.asked.batch / 1e12}

    def ours(self, mode: str) -> Mapping[str, Any]:
        engine, compiling = self.opening("none", mode, OTHER)
        rate, drawn = self.rate(engine, OTHER)
        busy = busy_seconds(lambda: self.draw(engine, OTHER), self.model.device)
        (self.plain[mode],) = self.draw(engine, MIXED)
        return {
            "images_per_second": rate,
            **share_of_roofline(rate, self.known),
            "busy": busy * rate / self.asked.batch,
            **compiling,
            "repeats": digest(drawn[0]) == digest(drawn[1]),
            "pictures": digest(drawn[0]),
        }

    def erased(self, mode: str, prompts: Sequence[str]) -> Mapping[str, Any]:
        engine, compiling = self.opening("erasing", mode, prompts)
        rate, _ = self.rate(engine, prompts)
        on_gpu = self.model.device.type == "cuda"
        memory = {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if on_gpu else {}
        return {"images_per_second": rate, **compiling, **memory}

    def unconcerned(self, mode: str) -> Mapping[str, Any]:
        """Of a batch in which every other prompt names the concept: are the others those of the batch without it?"""
        if mode not in self.plain:
            (self.plain[mode],) = self.draw(self.engine("none", mode), MIXED)
        (drawn,) = self.draw(self.engine("erasing", mode), MIXED)
        same = (drawn == self.plain[mode]).all(axis=(1, 2, 3))
        named = np.array([prompt in NAMED for prompt in (MIXED * len(same))[: len(same)]])
        return {"identical": bool(same[~named].all()), "concerned_changed": bool(not same[named].any())}


class Again(Side):
    """What a second process finds: the same bytes, and how soon it is ready."""

    def steps(self) -> Steps:
        if "pictures" in self.known.get("ours, eager", {}):
            yield "again, eager", partial(self.again, "ours, eager", "eager")
        if "pictures" in self.known.get("ours, compiled", {}):
            yield "again, compiled", partial(self.again, "ours, compiled", "compiled")
            yield "again, compiled anew", self.anew

    def again(self, figure: str, mode: str) -> Mapping[str, Any]:
        """Draw what the first process has drawn for *figure*."""
        engine, compiling = self.opening("none", mode, OTHER)
        (drawn,) = self.draw(engine, OTHER)
        return {**compiling, "pictures": digest(drawn), "same": digest(drawn) == self.known[figure]["pictures"]}

    def anew(self) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            self.opened, self.compiled, self.code = None, None, Pinned(Path(folder))
            return self.again("ours, compiled", "compiled")
