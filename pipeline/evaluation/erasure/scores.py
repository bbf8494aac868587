"""From what the judge (B: of the diorama, detector B) saw to the figures of an erasure. No models, no files.

Everything is paired: the unerased model answered the same questions with the same seeds, in the same batches.

Pictures of one unlisted word, of one scene, with one object beside come out alike, so what is said of these is said of
the words and scenes that were tried: all intervals are those of as many independent pictures as theirs are worth
(``effective_size``). A list's own names and aliases are all there are: of these every picture counts.

- leak (cells of ``LEAKS`` and ``ATTACKS``): the share of pictures in which B sees any concept of the task. Wilson 95 %.
  "scene" is that of the two cells that name the concept beside another object, which is what must be kept there.
- kept (cells of ``KEPT``): how often B sees what must be kept, to how often it does in the unerased pictures; with the
  paired interval of ``paired_ratio``. Above 1 it is more often there than before.
- false alarms: the share of *unerased* pictures of the cells "neighbour" and "unrelated", whose prompts do not name the
  concept, in which B sees it all the same. A leak below that cannot be told from none.
- outside: PSNR of the picture to the unerased one outside the box in which B places the concept in the unerased
  one, widened by a cell of 8 pixels; the median over pictures whose prompt names the concept and in which B sees it
  and tells where.
- untouched: the share of pictures of the cell "unrelated" that are bit for bit the unerased ones.
- H_o: harmonic mean of erasure and preservation, each of them the harmonic mean of its own columns: 1 - leak over
  plain, alias, synonym, implied and scene; and min(1, kept) over the cells of ``KEPT``. Columns that a task does not
  have are left out, but H_o is not known where a whole side is missing. It extends the H_o of MACE (Lu et al., CVPR
  2024: efficacy, generality, specificity, each once), in which any one failure is felt. Its intervals, and those of the
  difference of two recipes, are the middle 95 % of 2000 draws from what the counts of each cell leave possible: each
  picture has one of 2 outcomes (leaks or not), or of 4 (what is kept is seen before and after), and of 4 or 8 where two
  recipes are compared on the same pictures, so what a seed does to both cancels; the shares of the outcomes are
  distributed by Dirichlet, with one picture's weight spread evenly over them beforehand. A bootstrap would have no
  width where nothing leaked, and so often miss a small leak.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from pipeline.evaluation.erasure.config import NONE
from pipeline.evaluation.erasure.prompts import ATTACKS, KEPT, LEAKS, Question, Task
from pipeline.evaluation.erasure.store import Seen
from pipeline.evaluation.statistics import (
    Proportion,
    Ratio,
    count,
    dirichlet_shares,
    effective_pairs,
    effective_size,
    harmonic_mean,
    paired_ratio,
    percentile_interval,
    psnr,
)
from pipeline.evaluation.world import CELL
from pipeline.prompts.seeds import hashed

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not measured"
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True)
class Resampled:
    """A value, and what it is in each of ``RESAMPLES`` draws, (RESAMPLES,)."""

    value: float
    samples: np.ndarray

    @property
    def interval(self) -> Interval:
        return around(self.value, self.samples)


@dataclass(frozen=True)
class Scores:
    """The figures of one recipe on one task; cells that the task does not have are absent."""

    pictures: int
    leak: dict[str, Proportion]
    kept: dict[str, Ratio]
    outside: Interval  # dB
    untouched: Proportion
    balance: Resampled  # H_o


@dataclass(frozen=True)
class TaskScores:
    """The figures of one task. ``differences[a][b]`` is H_o of recipe a less that of b, on the pictures of both."""

    task: str
    erased: tuple[str, ...]
    false_alarms: Proportion
    recipes: dict[str, Scores]
    differences: dict[str, dict[str, Resampled]] = field(default_factory=dict)


def score_task(task: Task, asked: Sequence[Question], seen: Mapping[str, Seen]) -> TaskScores:
    """Score the recipes of *seen*, of which ``NONE`` is one. ``seen[recipe]`` answers the first so many of *asked*.

    Where a recipe has fewer pictures than others, its figures are on its own and its differences on those of both.
    """
    base = seen[NONE]
    cells = np.array([question.cell for question in asked])
    others = np.isin(cells[: len(base.seen)], ("neighbour", "unrelated"))
    alarms = count(erased_seen(task, base)[others], _clusters(asked, others))
    own = {name: _balances(task, asked, [found], base, len(found.seen))[0] for name, found in seen.items()}
    differences: dict[str, dict[str, Resampled]] = {name: {} for name in seen}
    for a, b in combinations(seen, 2):
        shared = min(len(seen[a].seen), len(seen[b].seen))
        first, second = _balances(task, asked, [seen[a], seen[b]], base, shared)
        differences[a][b] = Resampled(first.value - second.value, first.samples - second.samples)
        differences[b][a] = Resampled(second.value - first.value, second.samples - first.samples)
    scores = {name: _score(task, asked[: len(found.seen)], found, base, own[name]) for name, found in seen.items()}
    return TaskScores(task.name, task.erased, alarms, scores, differences)


def _score(task: Task, asked: Sequence[Question], found: Seen, base: Seen, balance: Resampled) -> Scores:
    cells = np.array([question.cell for question in asked])
    leaked = erased_seen(task, found)
    kept, kept_before = _kept_seen(task, asked, found), _kept_seen(task, asked, base)
    unrelated = np.flatnonzero(cells == "unrelated")
    same = [np.array_equal(found.images[i], base.images[i]) for i in unrelated]
    return Scores(
        pictures=len(asked),
        leak={
            cell: count(leaked[rows], _clusters(asked, rows))
            for cell, rows in ((cell, _rows(cells, cell)) for cell in (*LEAKS, *ATTACKS))
            if rows.any()
        },
        kept={
            cell: paired_ratio(kept[rows], kept_before[rows], _clusters(asked, rows))
            for cell, rows in ((cell, cells == cell) for cell in KEPT)
            if rows.any()
        },
        outside=_outside(task, asked, found, base),
        untouched=count(np.array(same, bool)),
        balance=balance,
    )


def erased_seen(task: Task, found: Seen) -> np.ndarray:
    """Boolean (N,): does B see any of the task's concepts?"""
    return np.asarray(found.seen[:, _columns(task, task.erased)].any(axis=1))


def _columns(task: Task, names: Sequence[str]) -> list[int]:
    """The columns of ``Seen.seen`` that stand for *names*."""
    return [task.world.classes.index(name) for name in names]


def _rows(cells: np.ndarray, column: str) -> np.ndarray:
    """Boolean (N,): the questions that count in *column*."""
    if column == "scene":
        return np.isin(cells, ("beside unrelated", "beside neighbour"))
    return np.asarray(cells == column)


def _clusters(asked: Sequence[Question], rows: np.ndarray) -> list[tuple[str, ...]]:
    """What tells apart the pictures of *rows*, boolean (N,), that come out alike."""
    return [asked[i].cluster for i in np.flatnonzero(rows).tolist()]


def _kept_seen(task: Task, asked: Sequence[Question], found: Seen) -> np.ndarray:
    """Boolean (N,): does B see what must be kept? False where there is nothing of the kind."""
    kept = {name: column for column, name in enumerate(task.world.classes)}
    return np.array([bool(q.kept) and found.seen[i, kept[q.kept]] for i, q in enumerate(asked)], bool)


def _balances(
    task: Task, asked: Sequence[Question], found: Sequence[Seen], base: Seen, pictures: int
) -> list[Resampled]:
    """H_o of each of *found* on the first *pictures*, and in draws that are those of the same pictures for all."""
    cells = np.array([question.cell for question in asked[:pictures]])
    rng = np.random.default_rng(hashed(task.name))  # another for each task
    erased = [~erased_seen(task, one)[:pictures] for one in found]
    kept = [_kept_seen(task, asked[:pictures], one) for one in (base, *found)]
    values: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in found]  # erasure, preservation
    samples: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in found]
    for cell in (*LEAKS, *KEPT):
        rows = _rows(cells, cell)
        if not rows.any():
            continue
        outcomes = np.stack([column[rows] for column in (erased if cell in LEAKS else kept)])
        clusters = _clusters(asked[:pictures], rows)
        if cell in LEAKS:
            size = min(effective_size(column, clusters) for column in outcomes)
        else:
            size = min(effective_pairs(column, outcomes[0], clusters) for column in outcomes[1:])
        for terms, shares in (
            (values, outcomes.mean(axis=1, keepdims=True)),
            (samples, dirichlet_shares(rng, outcomes, RESAMPLES, size)),
        ):
            for i, (erasure, preservation) in enumerate(terms):
                if cell in LEAKS:
                    erasure.append(shares[i])
                elif outcomes[0].any():  # else there was nothing to keep
                    preservation.append(np.minimum(1, shares[i + 1] / shares[0]))
    return [
        Resampled(float(_balance(*value, 1)[0]), _balance(*drawn, RESAMPLES))
        for value, drawn in zip(values, samples, strict=True)
    ]


def _balance(erasure: Sequence[np.ndarray], preservation: Sequence[np.ndarray], n: int) -> np.ndarray:
    """H_o, (n,), of the terms of both sides, (n,) each; not known where either side is not."""
    if not erasure or not preservation:
        return np.full(n, np.nan)
    e, p = harmonic_mean(np.stack(erasure)), harmonic_mean(np.stack(preservation))
    with np.errstate(divide="ignore"):
        return np.asarray(2 / (1 / e + 1 / p))


def _outside(task: Task, asked: Sequence[Question], found: Seen, base: Seen) -> Interval:
    if task.of_styles:  # a style has no place
        return Interval(math.nan, math.nan, math.nan)
    columns = _columns(task, task.erased)
    values = []
    for i, question in enumerate(asked):
        if question.cell not in ("plain", "alias", "beside unrelated", "beside neighbour"):
            continue
        if not base.seen[i, columns].any():
            continue
        named = [column for column in columns if base.seen[i, column]]
        where = base.places[i, named]
        if where.any(axis=(1, 2)).all():  # else the judge tells no place of one, which would count as outside
            values.append(psnr(found.images[i], base.images[i], ~_box(np.asarray(where.any(axis=0)))))
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return Interval(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(0)
    medians = np.median(known[rng.integers(0, len(known), (RESAMPLES, len(known)))], axis=1)
    low, high = np.sort(medians)[[int(0.025 * RESAMPLES), int(0.975 * RESAMPLES)]]  # some may be infinite
    return Interval(float(np.median(known)), float(low), float(high))


def _box(cells: np.ndarray) -> np.ndarray:
    """Boolean (H, W): the bounding box of *cells* (H / 8, W / 8), widened by a cell; empty where there are none."""
    inside = np.zeros((cells.shape[0] * CELL, cells.shape[1] * CELL), bool)
    if cells.any():
        rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
        top, left = max(0, rows[0] - 1), max(0, columns[0] - 1)
        inside[top * CELL : (rows[-1] + 2) * CELL, left * CELL : (columns[-1] + 2) * CELL] = True
    return inside


def pooled(values: Sequence[Resampled]) -> Interval:
    """The mean of one value of each task; tasks are resampled apart."""
    mean = float(np.mean([v.value for v in values]))
    return around(mean, np.mean([v.samples for v in values], axis=0))


def around(value: float, samples: np.ndarray) -> Interval:
    """The interval of *samples*, stretched to *value* where that is at the end of what is possible."""
    low, high = percentile_interval(samples)
    return Interval(value, min(low, value), max(high, value))
