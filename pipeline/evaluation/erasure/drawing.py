"""Draws the pictures of an evaluation with the engine that runs use, and lets the world's judge look at them.

Unit of work: a batch of one task's questions by one recipe. Knows the folder, and nothing of scores.
"""

import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from pipeline.config.concepts import concepts_of
from pipeline.erasure.recipe import CompiledRecipe, active_methods, compile_recipe, recipe_steps
from pipeline.erasure.training import train_missing
from pipeline.errors import ConfigError
from pipeline.evaluation.attacks.embedding import EmbeddingAttack, token_projections
from pipeline.evaluation.erasure.code import code_digest
from pipeline.evaluation.erasure.config import NONE, EvaluationConfig, run_config, world_of
from pipeline.evaluation.erasure.prompts import EMBEDDINGS, Question, questions_digest
from pipeline.evaluation.erasure.store import Folder, Origin, Seen
from pipeline.files import write_whole
from pipeline.generation.engine import Engine
from pipeline.models.find import find_model
from pipeline.models.load import Model, load_model
from pipeline.prompts import Sample, unplanned


class Drawer:
    """Draws with one engine at a time; an engine is loaded when its first batch is asked for."""

    def __init__(self, config: EvaluationConfig, folder: Folder, device: str):
        torch.set_num_threads(config.threads)
        self.config = config
        self.folder = folder
        self.device = device
        self.code = code_digest()
        self.world = world_of(config)
        self.judge = self.world.judge(device)
        self.limits = torch.tensor([self.judge.thresholds[name] for name in self.world.classes])
        self._engine: tuple[tuple[str, str, bool], Engine] | None = None

    def load_model(self) -> Model:
        return load_model(self.config.model, torch.device(self.device))

    def draw(self, task: str, recipe: str, batch: str, asked: Sequence[Question]) -> float:
        """Draw one batch to the folder; return the seconds it took. ``ConfigError`` where the recipe is refused.

        The questions of a batch are all of the cell ``EMBEDDINGS``, or none of them is.
        """
        engine = self._engine_of(task, recipe, asked[0].cell == EMBEDDINGS)
        started = time.perf_counter()
        (drawn,) = engine.generate(self._samples(asked))
        images = torch.from_numpy(drawn.images)
        probabilities, maps = self.judge.see(images)
        seen = (probabilities.cpu() >= self.limits).numpy()
        found = Seen(drawn.images, seen, (maps >= 0.5).cpu().numpy())
        self.folder.write(task, recipe, batch, found, Origin(questions_digest(asked), self.code))
        return time.perf_counter() - started

    def time(self, task: str, recipes: Sequence[str], concerned: Sequence[str], others: Sequence[str]) -> Any:
        """Seconds of a batch of prompts that name the concept, and of one that does not, for each of *recipes*.

        All take turns, in another order each round, so that whatever else the machine does falls on all of them. One
        round goes before, in which caches fill. Each round has other prompts, as far as there are enough: what a method
        makes of words it has not met is part of its time. Returns recipe -> {"concerned": [seconds, ...],
        "unconcerned": [seconds, ...]}.
        """
        self._engine = None
        size = self.config.timing.batch_size
        engines = {}
        for recipe in recipes:
            engine_config = run_config(self.config, task, recipe)
            engine_config.generation = replace(engine_config.generation, batch_size=size)
            engines[recipe] = self._load(task, recipe, engine_config)
        asked = {"concerned": concerned, "unconcerned": others}
        seconds: dict[str, dict[str, list[float]]] = {recipe: {name: [] for name in asked} for recipe in recipes}
        for repeat in range(self.config.timing.repeats + 1):
            for name, prompts in asked.items():
                numbers = range(repeat * size, (repeat + 1) * size)
                samples = self._samples([Question(name, prompts[i % len(prompts)], i, "") for i in numbers])
                for recipe in random.Random(f"{repeat} {name}").sample(list(engines), len(engines)):
                    started = time.perf_counter()
                    list(engines[recipe].generate(samples))
                    if repeat:
                        seconds[recipe][name].append(time.perf_counter() - started)
        return seconds

    def _samples(self, asked: Sequence[Question]) -> list[Sample]:
        return unplanned(((question.prompt, question.seed) for question in asked), *self.world.size)

    def _engine_of(self, task: str, recipe: str, attacked: bool) -> Engine:
        if self._engine is None or self._engine[0] != (task, recipe, attacked):
            self._engine = None  # one model in memory at a time
            engine = self._load(task, recipe, run_config(self.config, task, recipe))
            if attacked:
                original = {p.name: p.weight for p in token_projections(self.load_model())}
                concepts = concepts_of(engine.config.erasure)
                attack = EmbeddingAttack(engine.model, concepts, original, self.config.attack.reg)
                engine = Engine(engine.config, engine.model, [attack, *engine.methods])
            self._engine = ((task, recipe, attacked), engine)
        return self._engine[1]

    def _load(self, task: str, recipe: str, config: Any) -> Engine:
        """The engine of a recipe; its edits are solved, or trained (esd), once and kept in the folder."""
        if recipe == NONE:
            return Engine.load(config, None, self.device)
        place = self.folder.root / "recipes" / task / recipe
        record = self.folder.record(task, recipe)
        if record is not None:
            compiled = CompiledRecipe.from_files(record, lambda name: (place / name).read_bytes())
            return Engine.load(config, compiled, self.device)
        model = self.load_model()
        config.erasure.finetuned = str(self.folder.root / "finetuned")
        compiled = compile_recipe(config, model, train_missing)
        for name, data in compiled.tensors.items():
            write_whole(place / name, data)
        write_whole(place / "record.json", json.dumps({**compiled.record, "code": self.code}, indent=1).encode())
        return Engine(config, model, active_methods(config, model))


def check_recipes(config: EvaluationConfig) -> None:
    """Refuse recipes whose methods or options do not fit the model's family, before any weights are loaded."""
    family = find_model(config.model).family()
    for task in config.tasks:
        for recipe in config.recipes:
            try:
                recipe_steps(run_config(config, task, recipe), family)
            except ConfigError as error:
                raise ConfigError(str(error).replace("erasure.recipe", f"recipes.{recipe}")) from error


def ratios(seconds: Any) -> dict[str, dict[str, float]]:
    """Recipe -> median over the repeats of its seconds to the unerased model's, in the same repeat."""
    return {
        recipe: {
            name: statistics.median(a / b for a, b in zip(values, seconds[NONE][name], strict=True))
            for name, values in by_name.items()
        }
        for recipe, by_name in seconds.items()
    }
