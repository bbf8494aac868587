"""Scores of an evaluation of erasures as scores.json, tables (terminal, Markdown) and one self-contained page."""

from collections.abc import Sequence

from pipeline.evaluation.erasure.config import NONE
from pipeline.evaluation.erasure.findings import Findings, as_json, columns_of, mean_balance, ranked
from pipeline.evaluation.erasure.page import evaluation_page
from pipeline.evaluation.erasure.scores import TaskScores
from pipeline.evaluation.erasure.store import Folder
from pipeline.evaluation.erasure.tables import (
    all_rows,
    brief,
    decibel,
    differences,
    false_alarms,
    percent,
    preamble,
    task_rows,
    time_ratios,
)
from pipeline.files import write_whole

_SHORT = {
    "plain": "leak plain", "alias": "alias", "synonym": "synonym", "implied": "implied", "scene": "scene",
    "attack": "attack", "embeddings": "embeddings",
    "neighbour": "kept neighb.", "unrelated": "unrel.", "beside unrelated": "beside unrel.",
    "beside neighbour": "beside neighb.",
}  # fmt: skip


def write_report(folder: Folder, found: Findings) -> str:
    """Write scores.json, table.md and report.html; return the tables for the terminal."""
    folder.write_json("scores.json", as_json(found))
    write_whole(folder.root / "table.md", _markdown(found).encode())
    write_whole(folder.root / "report.html", evaluation_page(found).encode())
    return _terminal(found) + f"\n{folder.root / 'report.html'}"


def _terminal(found: Findings) -> str:
    """A table a task: percent, each with the end of its 95 % interval that counts (≤ for leak, ≥ for kept)."""
    blocks = []
    for task in found.tasks:
        columns = columns_of(task)
        rows = [["", "n", *(_SHORT[c] for c in columns), "outside dB", "same", "H_o", "time"]]
        for name, scores in task.recipes.items():
            cells = [brief(scores, c, name == NONE) if found.tells(c, task, name) else "-" for c in columns]
            same = "" if name == NONE else percent(scores.untouched.rate)
            score = scores.balance.interval
            balance = "" if name == NONE else f"{percent(score.value)} ≥{percent(score.low)}"
            rows.append(
                [
                    name,
                    str(scores.pictures),
                    *cells,
                    decibel(scores.outside, name),
                    same,
                    balance,
                    time_ratios(found, name),
                ]
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        blocks.append("\n".join([f"{task.task} ({', '.join(task.erased)}); {false_alarms(task)}", *lines]))
    if len(found.tasks) > 1:
        blocks.append("\n".join(["all tasks, H_o:", *(f"  {r}: {mean_balance(found, r)}" for r in ranked(found))]))
    blocks += [f"refused: {task}: {recipe}: {why}" for (task, recipe), why in found.refused.items()]
    blocks += [f"note: {note}" for note in found.notes]
    return "\n\n".join(blocks)


def _markdown(found: Findings) -> str:
    parts = ["# Erasure", preamble(found)]
    for task in found.tasks:
        head, rows = task_rows(found, task)
        lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
        parts += [f"## {task.task}: {', '.join(task.erased)}", false_alarms(task) + ".", "\n".join(lines)]
        parts += _differences_markdown("Difference of H_o, row less column:", [task])
    if len(found.tasks) > 1:
        parts += ["## All tasks", "\n".join("| " + " | ".join(row) + " |" for row in all_rows(found))]
        parts += _differences_markdown("Difference of the mean H_o, row less column:", found.tasks)
    parts += [f"Refused: {task}: {recipe}: {why}" for (task, recipe), why in found.refused.items()]
    parts += [f"Note: {note}." for note in found.notes]
    return "\n\n".join(parts) + "\n"


def _differences_markdown(title: str, tasks: Sequence[TaskScores]) -> list[str]:
    table = differences(tasks)
    if table is None:
        return []
    head, rows = table
    return [title, "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))]
