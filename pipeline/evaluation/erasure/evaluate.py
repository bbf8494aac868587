"""``lacuna evaluate erasure``: recipes against each other and against the unerased model, judged by a world's judge.

All answer the same questions (``prompts.py``) with the same seeds. Work goes in rounds: a tenth and then a
fifth of the questions by all recipes, the attacks, and the rest recipe by recipe. So an evaluation that is stopped
early has figures for all of them, and narrow ones for the first; given again, it goes on.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.config.concepts import concepts_of
from pipeline.config.schema import DType
from pipeline.errors import ConfigError, SelfCheckError
from pipeline.evaluation.attacks.embedding import token_projections
from pipeline.evaluation.erasure.attack_search import AttackSearch
from pipeline.evaluation.erasure.code import code_digest
from pipeline.evaluation.erasure.config import NONE, EvaluationConfig, run_config, settings
from pipeline.evaluation.erasure.drawing import Drawer, check_recipes, ratios
from pipeline.evaluation.erasure.findings import Findings
from pipeline.evaluation.erasure.prompts import (
    ATTACK,
    EMBEDDINGS,
    Question,
    Task,
    questions,
    questions_digest,
)
from pipeline.evaluation.erasure.report import write_report
from pipeline.evaluation.erasure.scores import erased_seen, score_task
from pipeline.evaluation.erasure.store import Folder, Seen, joined
from pipeline.evaluation.erasure.summary import summary
from pipeline.evaluation.results import machine, write_result
from pipeline.evaluation.statistics import count
from pipeline.generation.environment import environment
from pipeline.models.dtype import fast_dtype
from pipeline.paths import folder_on_disk
from pipeline.session import resolve_device
from pipeline.terminal import duration, printable

_ROUNDS = (0.1, 0.2)  # shares of the pictures that all recipes have before the attacks and before the rest
_REPORT_EVERY = 300.0  # seconds between the reports of a round that goes on

Batch = tuple[str, Sequence[Question]]  # its name in the folder, and what it answers


def evaluate_erasure(config: EvaluationConfig, out: str | Path, results: Path | None = None) -> str:
    """Draw what is missing in *out*, score it, write scores.json, table.md and report.html, and the figures in brief to
    *results* (``summary.py``); return the tables.

    Raises ``ConfigError`` for recipes that do not fit the model, and for a folder begun with other settings.
    """
    return Evaluation(config, out, results).run()


class Evaluation:
    """One evaluation in one folder."""

    def __init__(self, config: EvaluationConfig, out: str | Path, results: Path | None = None):
        check_recipes(config)
        try:
            device = resolve_device(config.device)
        except ConfigError as error:
            raise ConfigError(str(error).replace("cluster.device", "device")) from error
        if config.model.dtype is DType.auto:
            config = replace(config, model=replace(config.model, dtype=fast_dtype(device)))
        self.config = config
        self.results, self.machine = results, machine(device)
        self.recipes = (NONE, *config.recipes)
        self.folder = Folder(folder_on_disk(out))
        self.drawer = Drawer(config, self.folder, device)
        model = self.drawer.load_model()
        self.entries = {projection.name for projection in token_projections(model)}
        world = self.drawer.world
        self.tasks = {
            name: Task(name, concepts_of(run_config(config, name, NONE).erasure), world) for name in config.tasks
        }
        self.batches = {n: self._cut(questions(t, config.cell, config.seed), "") for n, t in self.tasks.items()}
        self.search = AttackSearch(config, self.folder, self.tasks, self.drawer.load_model)
        self.attacks: dict[str, dict[str, list[Batch]]] = {
            EMBEDDINGS: {name: self._cut(self.search.embedded(name), f"{EMBEDDINGS}-") for name in self.tasks},
            ATTACK: {name: [] for name in self.tasks},  # when they are searched
        }
        self.refused: dict[tuple[str, str], str] = {}
        self.settings = environment(device, config.threads) | settings(config)
        self.settings |= {"model.revision": model.revision, "judge": f"{world.judged_by} {world.judge_digest()}"}
        parts: dict[str, Any] = {f"tasks.{name}": asdict(task) for name, task in config.tasks.items()}
        parts |= {f"recipes.{name}": [asdict(step) for step in steps] for name, steps in config.recipes.items()}
        self.folder.begin(self.settings, parts)
        if config.attack.cases:
            self.search.check(model)
            for name in self.tasks:
                if (found := self.search.searched_before(name)) is not None:
                    self.attacks[ATTACK][name] = self._cut(found, f"{ATTACK}-")

    def run(self) -> str:
        """Do all that is missing, with a report after each round; return the tables for the terminal."""
        self._announce()
        for share in _ROUNDS:
            self._draw({task: _early(batches, share) for task, batches in self.batches.items()})
            self._check_unerased()
            if share == _ROUNDS[0]:
                self._time()
            self.report()
        if self.config.attack.embeddings:
            self._draw(self.attacks[EMBEDDINGS])
            self.report()
        if self.config.attack.cases:
            self.attacks[ATTACK] = {name: self._cut(self.search.searched(name), f"{ATTACK}-") for name in self.tasks}
            self._draw(self.attacks[ATTACK])
            self.report()
        self._draw(self.batches)
        self._check_unerased()
        return self.report()

    def report(self) -> str:
        """Score what there is and write it to the folder; return the tables for the terminal."""
        scored = []
        asked = {name: [question for _, part in self._ordered(name) for question in part] for name in self.tasks}
        drawn = self._evenly(asked)
        for name, task in self.tasks.items():
            found = drawn[name]
            if NONE in found and len(found) > 1:
                # What the unerased model has not drawn yet cannot be paired.
                most = len(found[NONE].seen)
                paired = {recipe: pictures.first(most) for recipe, pictures in found.items()}
                scored.append((score_task(task, asked[name], paired), paired))
        timing = self.folder.read_json("timing.json", ("of", "seconds"))
        findings = Findings(
            settings=self.settings,
            cell=self.config.cell,
            tasks=[scores for scores, _ in scored],
            asked=asked,
            pictures={scores.task: found for scores, found in scored},
            times=ratios(timing["seconds"]) if timing else {},
            refused=self.refused,
            unedited=self._unedited(),
            notes=self._notes(),
        )
        if self.results:
            what = f"Recipes against each other and the unerased model, judged by {self.drawer.world.judged_by}"
            parts = self.folder.read_json("settings.json", ("settings", "parts"))
            write_result(self.results, what=what, config=parts, figures=summary(findings), environment=self.machine)
        return write_report(self.folder, findings)

    def _evenly(self, asked: Mapping[str, Sequence[Question]]) -> dict[str, dict[str, Seen]]:
        """Return task -> recipe -> its pictures: of each recipe of all tasks as many of a kind, while tasks are under
        way. So no task weighs more than another where all are put together."""
        drawn: dict[str, dict[str, Seen]] = {name: {} for name in self.tasks}
        plain = {name: [i for i, question in enumerate(asked[name]) if question.cell == "plain"] for name in self.tasks}
        for recipe in self.recipes:
            seen = {name: self._seen(name, recipe) for name in self.tasks}
            found = {name: pictures for name, pictures in seen.items() if pictures is not None}
            least = min((sum(i < len(found[name].seen) for i in plain[name]) for name in found), default=0)
            for name, pictures in found.items():
                most = plain[name][least] if least < len(plain[name]) and recipe != NONE else len(pictures.seen)
                drawn[name][recipe] = pictures.first(most)
        return drawn

    def _draw(self, batches: Mapping[str, Sequence[Batch]]) -> None:
        """Draw what is missing of each task's *batches* with every recipe."""
        work = self._missing(batches)
        reported = time.monotonic()
        with tqdm(total=sum(len(asked) for *_, asked in work), unit="picture", disable=not work) as bar:
            for task, recipe, batch, asked in work:
                bar.set_description(f"{task}: {recipe}")
                if (task, recipe) not in self.refused:
                    try:
                        self.drawer.draw(task, recipe, batch, asked)
                    except SelfCheckError as error:  # a finding, not the end
                        self.refused[task, recipe] = str(error)
                        tqdm.write(printable(f"{task}: {recipe} is refused: {error}"), file=sys.stderr)
                bar.update(len(asked))
                if time.monotonic() - reported > _REPORT_EVERY:
                    self.report()
                    reported = time.monotonic()

    def _time(self) -> None:
        """Measure the recipes' time on the first task, unless it is known for all of them."""
        task = next(iter(self.tasks))
        usable = [recipe for recipe in self.recipes if (task, recipe) not in self.refused]
        known = self.folder.read_json("timing.json", ("of", "seconds"))
        of = {"task": task, **asdict(self.config.timing)}
        if not self.config.timing.repeats:
            return
        if known is not None and known["of"] == of and all(recipe in known["seconds"] for recipe in usable):
            return
        prompts = {
            cell: [question.prompt for _, part in self.batches[task] for question in part if question.cell == cell]
            for cell in ("plain", "unrelated")
        }
        world = self.drawer.world
        place = next(iter(world.places.values()))[0]
        others = prompts["unrelated"] or [f"{world.indefinite(word)} {place}" for word in world.unknown]
        print(f"timing {len(usable)} recipes on {task!r}", file=sys.stderr)
        seconds = self.drawer.time(task, usable, prompts["plain"], others)
        self.folder.write_json("timing.json", {"of": of, "seconds": seconds})

    def _check_unerased(self) -> None:
        """Refuse a task of which the unerased model shows nothing: no leak could then be told from none.

        Raises ``ConfigError``.
        """
        for name, task in self.tasks.items():
            seen = self._seen(name, NONE)
            assert seen is not None, "the first round draws the unerased model"
            asked = [question for _, part in self._ordered(name) for question in part][: len(seen.seen)]
            shown = count(erased_seen(task, seen)[[question.cell in ("plain", "alias") for question in asked]])
            if shown.high < 0.5:
                raise ConfigError(
                    f"tasks.{name}: the unerased model shows what is to be erased in {shown.hits} of {shown.trials} "
                    "pictures that name it (expected half of them), so nothing can be told of its erasure"
                )

    def _announce(self) -> None:
        """Say how much there is to draw and about how long it will take, measured on the first batch of it."""
        missing = self._missing(self.batches)
        if not missing:
            return
        task, recipe, batch, asked = missing[0]
        try:
            pace = self.drawer.draw(task, recipe, batch, asked) / self.config.generation.batch_size
        except SelfCheckError:  # said when its turn comes
            return
        pictures = sum(len(asked) for *_, asked in missing)
        cases = self.config.attack.cases + self.config.attack.embeddings
        attacks = cases * len(self.tasks) * len(self.recipes)
        timed = self.config.timing.repeats * 2 * len(self.recipes) * self.config.timing.batch_size
        print(
            f"{pictures:,} pictures to draw ({len(self.tasks)} tasks, {len(self.recipes)} recipes with the unerased "
            f"model, {self.config.cell} prompts a cell): about {duration((pictures + attacks + timed) * pace)} at "
            f"{1 / pace:.2f} pictures/s, if all recipes were as fast as {recipe!r}",
            file=sys.stderr,
        )

    def _missing(self, batches: Mapping[str, Sequence[Batch]]) -> list[tuple[str, str, str, Sequence[Question]]]:
        """Task, recipe, name and questions of each of *batches* that is not in the folder, in the order of work.

        Recipes go one after another, so that the first of the config have all their pictures long before the last.
        """
        return [
            (task, recipe, batch, asked)
            for recipe in self.recipes
            for task in self.tasks
            for batch, asked in batches[task]
            if not self.folder.has(task, recipe, batch, questions_digest(asked))
        ]

    def _ordered(self, task: str) -> list[Batch]:
        """A task's batches in the order of work."""
        early = _early(self.batches[task], _ROUNDS[-1])
        attacks = [batch for by_task in self.attacks.values() for batch in by_task[task]]
        return [*early, *attacks, *self.batches[task][len(early) :]]

    def _cut(self, asked: Sequence[Question], prefix: str) -> list[Batch]:
        """Cut into batches. One that is not full has its size in its name: with more attacks it becomes another."""
        size = self.config.generation.batch_size
        parts = [(i // size, asked[i : i + size]) for i in range(0, len(asked), size)]
        return [(f"{prefix}{i:05d}" + f"-{len(part)}" * (len(part) < size), part) for i, part in parts]

    def _seen(self, task: str, recipe: str) -> Seen | None:
        """All pictures up to the first batch that is missing; None where there are none."""
        parts = []
        for batch, asked in self._ordered(task):
            if not self.folder.has(task, recipe, batch, questions_digest(asked)):
                break
            parts.append(self.folder.read(task, recipe, batch))
        return joined(parts) if parts else None

    def _unedited(self) -> set[tuple[str, str]]:
        """The task and recipe of all that is drawn with every layer that token embeddings enter as it was."""
        return {
            (task, recipe)
            for task in self.tasks
            for recipe in self.config.recipes
            if (edited := self.folder.edited(task, recipe)) is not None and not edited & self.entries
        }

    def _notes(self) -> list[str]:
        """What a reader must know of how the pictures came about."""
        now = code_digest()
        stale = []
        for task in self.tasks:
            for recipe in self.recipes:
                other = self.folder.codes(task, recipe, [batch for batch, _ in self._ordered(task)]) - {now}
                if other:
                    stale.append(f"{task}: {recipe} (code {', '.join(sorted(other))})")
        return [f"drawn by other code than the present {now}: {'; '.join(stale)}"] if stale else []


def _early(batches: list[Batch], share: float) -> list[Batch]:
    """The first *share* of a task's batches; at least one."""
    return batches[: max(1, round(share * len(batches)))]
