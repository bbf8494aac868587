"""What an evaluation of erasures has found: all that its tables and its page tell, and the same as JSON."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.evaluation.erasure.config import NONE
from pipeline.evaluation.erasure.prompts import ATTACKS, EMBEDDINGS, KEPT, LEAKS, Question
from pipeline.evaluation.erasure.scores import Interval, TaskScores, pooled
from pipeline.evaluation.erasure.store import Seen


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that a report tells. ``times[recipe]`` are ratios to the unerased model; ``refused`` is by (task, recipe).

    ``unedited`` are the (task, recipe) of which no layer that token embeddings enter has been edited.
    """

    settings: Mapping[str, Any]
    cell: int
    tasks: Sequence[TaskScores]
    asked: Mapping[str, Sequence[Question]]
    pictures: Mapping[str, Mapping[str, Seen]]
    times: Mapping[str, Mapping[str, float]]
    refused: Mapping[tuple[str, str], str]
    unedited: Collection[tuple[str, str]]
    notes: Sequence[str]

    def recipes_of_all(self) -> list[str]:
        """The recipes that have pictures of every task."""
        return [r for r in self.tasks[0].recipes if r != NONE and all(r in t.recipes for t in self.tasks)]

    def tells(self, column: str, task: TaskScores, recipe: str) -> bool:
        """Whether a figure is of its column: the attack by embeddings is none where it has no edit to get round."""
        return column != EMBEDDINGS or (task.task, recipe) not in self.unedited


def ranked(found: Findings) -> list[str]:
    return sorted(found.recipes_of_all(), key=lambda r: -mean_balance(found, r).value)


def mean_balance(found: Findings, recipe: str) -> Interval:
    """H_o as the mean over tasks."""
    return pooled([task.recipes[recipe].balance for task in found.tasks])


def columns_of(task: TaskScores) -> list[str]:
    return [c for c in (*LEAKS, *ATTACKS, *KEPT) if any(c in s.leak or c in s.kept for s in task.recipes.values())]


def as_json(found: Findings) -> dict[str, Any]:
    """All figures as JSON; infinite and missing ones as text and null."""
    tasks = {}
    for task in found.tasks:
        recipes = {}
        for name, scores in task.recipes.items():
            values = asdict(scores)
            for group in ("leak", "kept"):
                for cell, share in getattr(scores, group).items():
                    values[group][cell]["rate"] = share.rate
            values["untouched"]["rate"] = scores.untouched.rate
            del values["balance"]
            values["H_o"] = asdict(scores.balance.interval)
            values["H_o differences"] = {b: asdict(value.interval) for b, value in task.differences[name].items()}
            recipes[name] = values
        alarms = asdict(task.false_alarms) | {"rate": task.false_alarms.rate}
        tasks[task.task] = {"erased": list(task.erased), "false alarms": alarms, "recipes": recipes}
    everything = {
        "settings": dict(found.settings),
        "cell": found.cell,
        "tasks": tasks,
        "all tasks": {r: asdict(mean_balance(found, r)) for r in ranked(found)} if found.tasks else {},
        "time": {recipe: dict(times) for recipe, times in found.times.items()},
        "refused": {f"{task}: {recipe}": why for (task, recipe), why in found.refused.items()},
        "notes": list(found.notes),
    }
    text = json.dumps(everything)
    plain: dict[str, Any] = json.loads(text, parse_constant=lambda name: None if name == "NaN" else name)
    return plain
