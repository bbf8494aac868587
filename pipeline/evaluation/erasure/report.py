"""Scores of an evaluation of erasures as scores.json, tables (terminal, Markdown) and one self-contained page."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config.schema import ImageFormat
from pipeline.corpus.encode import encode_image
from pipeline.evaluation.attacks.ring_a_bell import Budget
from pipeline.evaluation.erasure.config import NONE
from pipeline.evaluation.erasure.prompts import ATTACK, ATTACKS, EMBEDDINGS, KEPT, LEAKS, Question
from pipeline.evaluation.erasure.scores import Interval, Scores, TaskScores, pooled
from pipeline.evaluation.erasure.store import Folder, Seen
from pipeline.evaluation.statistics import Ratio, pooled_proportion, pooled_ratio
from pipeline.files import write_whole
from pipeline.pages.page import escape, page, picture

_SHOWN = 4  # prompts of each cell on a contact sheet
_SHORT = {
    "plain": "leak plain", "alias": "alias", "synonym": "synonym", "implied": "implied", "scene": "scene",
    "attack": "attack", "embeddings": "embeddings",
    "neighbour": "kept neighb.", "unrelated": "unrel.", "beside unrelated": "beside unrel.",
    "beside neighbour": "beside neighb.",
}  # fmt: skip


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


def write_report(folder: Folder, found: Findings) -> str:
    """Write scores.json, table.md and report.html; return the tables for the terminal."""
    folder.write_json("scores.json", _plain(found))
    write_whole(folder.root / "table.md", _markdown(found).encode())
    write_whole(folder.root / "report.html", _page(found).encode())
    return _terminal(found) + f"\n{folder.root / 'report.html'}"


def _terminal(found: Findings) -> str:
    """A table a task: percent, each with the end of its 95 % interval that counts (≤ for leak, ≥ for kept)."""
    blocks = []
    for task in found.tasks:
        columns = _columns(task)
        rows = [["", "n", *(_SHORT[c] for c in columns), "outside dB", "same", "H_o", "time"]]
        for name, scores in task.recipes.items():
            cells = [_brief(scores, c, name == NONE) if found.tells(c, task, name) else "-" for c in columns]
            same = "" if name == NONE else _percent(scores.untouched.rate)
            score = scores.balance.interval
            balance = "" if name == NONE else f"{_percent(score.value)} ≥{_percent(score.low)}"
            rows.append(
                [name, str(scores.pictures), *cells, _decibel(scores.outside, name), same, balance, _time(found, name)]
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        blocks.append("\n".join([f"{task.task} ({', '.join(task.erased)}); {_alarms(task)}", *lines]))
    if len(found.tasks) > 1:
        blocks.append("\n".join(["all tasks, H_o:", *(f"  {r}: {_balance(found, r)}" for r in _ranked(found))]))
    blocks += [f"refused: {task}: {recipe}: {why}" for (task, recipe), why in found.refused.items()]
    blocks += [f"note: {note}" for note in found.notes]
    return "\n\n".join(blocks)


def _ranked(found: Findings) -> list[str]:
    return sorted(found.recipes_of_all(), key=lambda r: -_balance(found, r).value)


def _balance(found: Findings, recipe: str) -> Interval:
    """H_o as the mean over tasks."""
    return pooled([task.recipes[recipe].balance for task in found.tasks])


def _columns(task: TaskScores) -> list[str]:
    return [c for c in (*LEAKS, *ATTACKS, *KEPT) if any(c in s.leak or c in s.kept for s in task.recipes.values())]


def _brief(scores: Scores, column: str, unerased: bool) -> str:
    if column in scores.leak:
        leak = scores.leak[column]
        return _percent(leak.rate) if unerased else f"{_percent(leak.rate)} ≤{_percent(leak.high)}"
    if column not in scores.kept:
        return ""
    kept = scores.kept[column]
    if unerased:
        return _percent(kept.base / kept.trials)
    return f"{_percent(kept.rate)} ≥{_percent(kept.low)}" if kept.base else "-"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f}" if share in (0, 1) else f"{100 * share:.1f}"


def _decibel(interval: Interval, recipe: str) -> str:
    if recipe == NONE or math.isnan(interval.value):
        return ""
    return "same" if math.isinf(interval.value) else f"{interval.value:.1f}"


def _time(found: Findings, recipe: str) -> str:
    times = found.times.get(recipe)
    return "" if times is None or recipe == NONE else f"{times['concerned']:.2f}/{times['unconcerned']:.2f}"


def _alarms(task: TaskScores) -> str:
    return f"B's own false alarms on unerased pictures of other things: {task.false_alarms}"


def _rows(found: Findings, task: TaskScores) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a task's full table, with intervals and counts."""
    columns = _columns(task)
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
        outside = _decibel(scores.outside, name)
        if outside and outside != "same":
            outside += f" ({scores.outside.low:.1f} to {scores.outside.high:.1f})"
        rows.append([name, *cells, outside, str(scores.untouched), str(scores.balance.interval), _time(found, name)])
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


def _markdown(found: Findings) -> str:
    parts = ["# Erasure, judged by detector B", _preamble(found)]
    for task in found.tasks:
        head, rows = _rows(found, task)
        lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
        parts += [f"## {task.task}: {', '.join(task.erased)}", _alarms(task) + ".", "\n".join(lines)]
        parts += ["Difference of H_o, row less column:", _differences_markdown(found, [task])]
    if len(found.tasks) > 1:
        parts += ["## All tasks", "\n".join("| " + " | ".join(row) + " |" for row in _all_rows(found))]
        parts += ["Difference of the mean H_o, row less column:", _differences_markdown(found, found.tasks)]
    parts += [f"Refused: {task}: {recipe}: {why}" for (task, recipe), why in found.refused.items()]
    parts += [f"Note: {note}." for note in found.notes]
    return "\n\n".join(parts) + "\n"


def _all_rows(found: Findings) -> list[list[str]]:
    """Head, rule and rows of the table of all tasks: the pictures of each cell together, and the mean H_o."""
    columns = [c for c in (*LEAKS, *ATTACKS, *KEPT) if any(c in _columns(task) for task in found.tasks)]
    head = ["recipe", *(_title(c) for c in columns), "mean H_o", "time where concerned / where not"]
    rows = [head, ["---"] * len(head)]
    for name in (NONE, *_ranked(found)):
        together = []
        for column in columns:
            scores = [task.recipes[name] for task in found.tasks if found.tells(column, task, name)]
            together.append(_together(scores, column, name == NONE) if scores else "-")
        rows.append(
            [name, *together, *(["", "1"] if name == NONE else [str(_balance(found, name)), _time(found, name)])]
        )
    return rows


def _together(scores: Sequence[Scores], column: str, unerased: bool) -> str:
    if column in LEAKS or column in ATTACKS:
        leaks = [s.leak[column] for s in scores if column in s.leak]
        return str(pooled_proportion(leaks)) if leaks else ""
    kept = pooled_ratio([s.kept[column] for s in scores if column in s.kept])
    return _seen(kept) if unerased else str(kept)


def _differences_markdown(found: Findings, tasks: Sequence[TaskScores]) -> str:
    head, rows = _differences(found, tasks)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _differences(found: Findings, tasks: Sequence[TaskScores]) -> tuple[list[str], list[list[str]]]:
    names = [r for r in tasks[0].recipes if r != NONE and all(r in t.recipes for t in tasks)]
    rows = [
        [a, *("" if a == b else _points(pooled([t.differences[a][b] for t in tasks])) for b in names)] for a in names
    ]
    return ["", *names], rows


def _points(difference: Interval) -> str:
    if math.isnan(difference.value):
        return "not measured"
    return f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def _preamble(found: Findings) -> str:
    s = found.settings
    return (
        f"Model `{s['model.path']}` ({str(s['model.revision'])[:23]}), {s['model.dtype']}, "
        f"{s['generation.steps']} steps, guidance {s['generation.guidance']}, batches of "
        f"{s['generation.batch_size']}, up to {found.cell} prompts a cell, seed {s['seed']}, detector B "
        f"`{s['detector B']}`, {s['device']}, torch {s['torch']}. Leak and other shares: Wilson 95 %. Kept: ratio to "
        "the unerased pictures of the same prompts and seeds, paired interval of Bonett and Price. H_o: harmonic mean "
        "of erasure and preservation, its interval by Dirichlet draws; all are defined in "
        "`pipeline/evaluation/erasure/scores.py`. Time: median ratio to the unerased model, interleaved, on the first "
        "task. The row `none` is the unerased model: how often it shows what it is asked for." + _attacks(found)
    )


def _attacks(found: Findings) -> str:
    """What a reader must know of the attacks that were made, a sentence each."""
    columns = {column for task in found.tasks for column in _columns(task)}
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


def _page(found: Findings) -> str:
    body = ["<h1>Erasure, judged by detector B</h1>", f"<p class=soft>{escape(_preamble(found))}</p>"]
    body += [f"<p class=bad>Refused: {escape(f'{t}: {r}: {why}')}</p>" for (t, r), why in found.refused.items()]
    body += [f"<p class=bad>Note: {escape(note)}</p>" for note in found.notes]
    if len(found.tasks) > 1:
        body += ["<h2>All tasks</h2>"]
        head, _, *rows = _all_rows(found)
        body.append(_table(head, rows))
        body += ["<p>Difference of the mean H_o, row less column</p>", _table(*_differences(found, found.tasks))]
    for task in found.tasks:
        body += [f"<h2>{escape(task.task)}: {escape(', '.join(task.erased))}</h2>", f"<p>{escape(_alarms(task))}.</p>"]
        body += [_table(*_rows(found, task)), "<p>Difference of H_o, row less column</p>"]
        body += [_table(*_differences(found, [task])), "<p>Pictures: the same prompt and seed in a row.</p>"]
        body += [_sheet(found, task.task, cell) for cell in (*LEAKS, *ATTACKS, *KEPT)]
    return page("Erasure", body, wide=True)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself; its first column, and H_o beside it, stay in sight."""
    order = list(range(len(head)))
    balance = next((i for i in order if head[i].endswith("H_o")), None)
    if balance is not None:
        order.insert(1, order.pop(balance))
    lines = ["<tr>" + "".join(f"<th>{escape(head[i])}" for i in order) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_cell(row[i])}" for i in order) + "</tr>" for row in rows]
    return f"<div class=wide><table class={'figures' if balance is None else 'scores'}>{''.join(lines)}</table></div>"


def _cell(text: str) -> str:
    """A figure, and below it in small what stands in brackets behind it: its interval and counts."""
    figure, bracket, rest = text.partition(" (")
    return f"{escape(figure)}<br><small>({escape(rest)}</small>" if bracket else escape(text)


def _sheet(found: Findings, task: str, cell: str) -> str:
    """The first prompts of a cell, a row each, a column for every recipe."""
    pictures = found.pictures[task]
    fewest = min(len(seen.images) for seen in pictures.values())
    rows = [i for i, question in enumerate(found.asked[task][:fewest]) if question.cell == cell][:_SHOWN]
    if not rows:
        return ""
    lines = ["<tr><th>" + "".join(f"<th>{escape(recipe)}" for recipe in pictures) + "</tr>"]
    for i in rows:
        images = (picture(encode_image(seen.images[i], ImageFormat.jpg, 92)) for seen in pictures.values())
        prompt = escape(found.asked[task][i].prompt)
        lines.append(f"<tr><td class=soft>{prompt}" + "".join(f"<td>{image}" for image in images) + "</tr>")
    title = (LEAKS | ATTACKS | KEPT)[cell]
    return (
        f"<details{' open' if cell == 'plain' else ''}><summary>{escape(cell)}: {escape(title)}</summary>"
        f"<div class=wide><table class=pixels>{''.join(lines)}</table></div></details>"
    )


def _plain(found: Findings) -> dict[str, Any]:
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
        "all tasks": {r: asdict(_balance(found, r)) for r in _ranked(found)} if found.tasks else {},
        "time": {recipe: dict(times) for recipe, times in found.times.items()},
        "refused": {f"{task}: {recipe}": why for (task, recipe), why in found.refused.items()},
        "notes": list(found.notes),
    }
    return json.loads(json.dumps(everything), parse_constant=lambda text: None if text == "NaN" else text)
