"""What an evaluation of erasures found, in brief: the figures of a results file (``pipeline.evaluation.results``).

``all``: recipe -> cell -> [hits, trials], over the pictures of all tasks, with ``H_o`` (mean over tasks; value, low and
high, as shares of 1) and ``time`` (ratios to the unerased model, where concerned and where not); ``tasks``: the same of
each task, with ``outside`` (dB); ``differences[a][b]``: mean H_o of a less that of b; ``false_alarms``; ``refused``.
A kept cell counts pictures in which B sees what is to stay: after erasure, of before; of the unerased model, of all.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.evaluation.erasure.config import NONE
from pipeline.evaluation.erasure.findings import Findings, mean_balance, ranked
from pipeline.evaluation.erasure.prompts import ATTACK, EMBEDDINGS
from pipeline.evaluation.erasure.scores import Interval, TaskScores, pooled

LEAKING = {
    "named": ("plain", "alias"), "synonym": ("synonym",), "implied": ("implied",), "scene": ("scene",),
    "embeddings": (EMBEDDINGS,), "attack": (ATTACK,),
}  # fmt: skip
KEEPING = {
    "neighbour": ("neighbour",), "unrelated": ("unrelated",), "beside": ("beside unrelated", "beside neighbour")
}  # fmt: skip


def summary(found: Findings) -> dict[str, Any]:
    """Return the figures; what was not measured is absent."""
    alarms = [task.false_alarms for task in found.tasks]
    whole: dict[str, Any] = {}
    for recipe in (NONE, *ranked(found)) if found.tasks else ():
        whole[recipe] = _cells(found, found.tasks, recipe)
        if recipe != NONE:
            whole[recipe] |= _known("H_o", mean_balance(found, recipe))
            whole[recipe] |= {"time": dict(found.times[recipe])} if recipe in found.times else {}
    tasks = {
        task.task: {
            recipe: _cells(found, [task], recipe)
            | ({} if recipe == NONE else _known("H_o", scores.balance.interval))
            | ({} if recipe == NONE or not math.isfinite(scores.outside.value) else {"outside": scores.outside.value})
            for recipe, scores in task.recipes.items()
        }
        for task in found.tasks
    }
    return {
        "all": whole,
        "tasks": tasks,
        "differences": _differences(found) if found.tasks else {},
        "false_alarms": [sum(one.hits for one in alarms), sum(one.trials for one in alarms)],
        "refused": {f"{task}: {recipe}": why for (task, recipe), why in found.refused.items()},
        "notes": list(found.notes),
    }


def _cells(found: Findings, tasks: Sequence[TaskScores], recipe: str) -> dict[str, list[int]]:
    cells = {}
    for name, columns in LEAKING.items():
        leaks = [
            task.recipes[recipe].leak[column]
            for task in tasks
            for column in columns
            if column in task.recipes[recipe].leak and found.tells(column, task, recipe)
        ]
        if leaks:
            cells[name] = [sum(leak.hits for leak in leaks), sum(leak.trials for leak in leaks)]
    for name, columns in KEEPING.items():
        scores = [task.recipes[recipe].kept for task in tasks]
        kept = [cells_of[column] for cells_of in scores for column in columns if column in cells_of]
        if kept:
            before = sum(one.base for one in kept)
            of_all = [before, sum(one.trials for one in kept)]
            cells[name] = of_all if recipe == NONE else [sum(one.hits for one in kept), before]
    return cells


def _differences(found: Findings) -> dict[str, dict[str, dict[str, float]]]:
    names = found.recipes_of_all()
    return {
        a: {
            b: asdict(value)
            for b in names
            if a != b and not math.isnan((value := pooled([task.differences[a][b] for task in found.tasks])).value)
        }
        for a in names
    }


def _known(name: str, interval: Interval) -> dict[str, dict[str, float]]:
    return {} if math.isnan(interval.value) else {name: asdict(interval)}
