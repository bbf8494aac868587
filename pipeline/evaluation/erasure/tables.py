"""Figures of an evaluation as cells, rows and sentences, for Markdown and for the page alike."""

import math
from collections.abc import Sequence

from pipeline.evaluation.attacks.ring_a_bell import Budget
from pipeline.evaluation.erasure.config import NONE
from pipeline.evaluation.erasure.findings import Findings, columns_of, mean_balance, ranked
from pipeline.evaluation.erasure.prompts import ATTACK, ATTACKS, EMBEDDINGS, KEPT, LEAKS
from pipeline.evaluation.erasure.scores import Interval, Scores, TaskScores, pooled
from pipeline.evaluation.statistics import Ratio, pooled_proportion, pooled_ratio


def brief(scores: Scores, column: str, unerased: bool) -> str:
    if column in scores.leak:
        leak = scores.leak[column]
        return percent(leak.rate) if unerased else f"{percent(leak.rate)} ≤{percent(leak.high)}"
    if column not in scores.kept:
        return ""
    kept = scores.kept[column]
    if unerased:
        return percent(kept.base / kept.trials)
    return f"{percent(kept.rate)} ≥{percent(kept.low)}" if kept.base else "-"


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f}" if share in (0, 1) else f"{100 * share:.1f}"


def decibel(interval: Interval, recipe: str) -> str:
    if recipe == NONE or math.isnan(interval.value):
        return ""
    return "same" if math.isinf(interval.value) else f"{interval.value:.1f}"


def time_ratios(found: Findings, recipe: str) -> str:
    times = found.times.get(recipe)
    return "" if times is None or recipe == NONE else f"{times['concerned']:.2f}/{times['unconcerned']:.2f}"


def false_alarms(task: TaskScores) -> str:
    return f"the judge's own false alarms on unerased pictures of other things: {task.false_alarms}"


def task_rows(found: Findings, task: TaskScores) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a task's full table, with intervals and counts."""
    columns = columns_of(task)
    head = [
        "recipe", *(_title(c) for c in columns), "outside the concept's place, dB", "unrelated untouched", "H_o",
        "time where concerned / where not",
    ]  # fmt: skip
    rows = []
    for name, scores in task.recipes.items():
        cells = [_full(scores, c, name == NONE) if found.tells(c, task, name) else "-" for c in columns]
        if name == NONE:
            rows.append([name, *cells, "", "", "", "1"])
            continue
        outside = decibel(scores.outside, name)
        if outside and outside != "same":
            outside += f" ({scores.outside.low:.1f} to {scores.outside.high:.1f})"
        rows.append(
            [name, *cells, outside, str(scores.untouched), str(scores.balance.interval), time_ratios(found, name)]
        )
    return head, rows


def _full(scores: Scores, column: str, unerased: bool) -> str:
    if column in scores.leak:
        return str(scores.leak[column])
    if column not in scores.kept:
        return ""
    kept = scores.kept[column]
    return _seen(kept) if unerased else str(kept)


def _seen(kept: Ratio) -> str:
    return f"{100 * kept.base / kept.trials:.1f} % seen ({kept.base}/{kept.trials})"


def _title(column: str) -> str:
    if column in LEAKS:
        return f"leak, {LEAKS[column]}"
    return f"attack {ATTACKS[column]}" if column in ATTACKS else f"kept: {KEPT[column]}"


def all_rows(found: Findings) -> list[list[str]]:
    """Head, rule and rows of the table of all tasks: the pictures of each cell together, and the mean H_o."""
    columns = [c for c in (*LEAKS, *ATTACKS, *KEPT) if any(c in columns_of(task) for task in found.tasks)]
    head = ["recipe", *(_title(c) for c in columns), "mean H_o", "time where concerned / where not"]
    rows = [head, ["---"] * len(head)]
    for name in (NONE, *ranked(found)):
        together = []
        for column in columns:
            scores = [task.recipes[name] for task in found.tasks if found.tells(column, task, name)]
            together.append(_together(scores, column, name == NONE) if scores else "-")
        rows.append(
            [
                name,
                *together,
                *(["", "1"] if name == NONE else [str(mean_balance(found, name)), time_ratios(found, name)]),
            ]
        )
    return rows


def _together(scores: Sequence[Scores], column: str, unerased: bool) -> str:
    if column in LEAKS or column in ATTACKS:
        leaks = [s.leak[column] for s in scores if column in s.leak]
        return str(pooled_proportion(leaks)) if leaks else ""
    kept = pooled_ratio([s.kept[column] for s in scores if column in s.kept])
    return _seen(kept) if unerased else str(kept)


def differences(tasks: Sequence[TaskScores]) -> tuple[list[str], list[list[str]]] | None:
    """Head and rows of the table of differences; None where there are no two recipes to compare."""
    names = [r for r in tasks[0].recipes if r != NONE and all(r in t.recipes for t in tasks)]
    if len(names) < 2:
        return None
    rows = [
        [a, *("" if a == b else _points(pooled([t.differences[a][b] for t in tasks])) for b in names)] for a in names
    ]
    return ["", *names], rows


def _points(difference: Interval) -> str:
    if math.isnan(difference.value):
        return "not measured"
    return f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def preamble(found: Findings) -> str:
    s = found.settings
    return (
        f"Model `{s['model.path']}` ({str(s['model.revision'])[:23]}), {s['model.dtype']}, "
        f"{s['generation.steps']} steps, guidance {s['generation.guidance']}, batches of "
        f"{s['generation.batch_size']}, up to {found.cell} prompts a cell, seed {s['seed']}, judged by "
        f"{s['judge']}, {s['device']}, torch {s['torch']}. Leak and other shares: Wilson 95 %. Kept: ratio to "
        "the unerased pictures of the same prompts and seeds, paired interval of Bonett and Price. All intervals take "
        "pictures of one unlisted word, of one scene or with one other object for as many as they are worth, being "
        "alike. H_o: harmonic mean of erasure and preservation, its interval by Dirichlet draws; all are defined in "
        "`pipeline/evaluation/erasure/scores.py`. Time: median ratio to the unerased model, interleaved, on the first "
        "task. The row `none` is the unerased model: how often it shows what it is asked for." + _attacks(found)
    )


def _attacks(found: Findings) -> str:
    """What a reader must know of the attacks that were made, a sentence each."""
    columns = {column for task in found.tasks for column in columns_of(task)}
    said = ""
    if ATTACK in columns:
        tokens, strength, population, generations = (
            found.settings[f"attack.{name}"] for name in ("tokens", "strength", "population", "generations")
        )
        budget = Budget(tokens, strength, population, generations)
        said += (
            f" Search of the attack: {tokens} tokens, strength {strength:g}, a population of {population}, "
            f"{generations} generations of {budget.children} children, so {budget.encodings:,} texts encoded a case."
        )
    if EMBEDDINGS in columns:
        said += (
            " Attack by embeddings: `-` where no layer that embeddings enter has been edited, because what the attack "
            "hands in is then the prompt's own embeddings and its figure that of plain prompts."
        )
    return said
