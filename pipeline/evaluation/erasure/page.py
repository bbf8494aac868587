"""An evaluation as one self-contained page: its tables, and pictures of every recipe side by side."""

from collections.abc import Sequence
from typing import Any

from pipeline.config.schema import ImageFormat
from pipeline.corpus.encode import encode_image
from pipeline.evaluation.erasure.findings import Findings
from pipeline.evaluation.erasure.prompts import ATTACKS, KEPT, LEAKS
from pipeline.evaluation.erasure.scores import TaskScores
from pipeline.evaluation.erasure.tables import all_rows, differences, false_alarms, preamble, task_rows
from pipeline.pages.page import render

_SHOWN = 4  # prompts of each cell on a contact sheet


def evaluation_page(found: Findings) -> str:
    """Return report.html of an evaluation."""
    together = None
    if len(found.tasks) > 1:
        head, _, *rows = all_rows(found)
        together = {"scores": _table(head, rows), "differences": _differences(found.tasks)}
    return render(
        "evaluation.html",
        title="Erasure",
        preamble=preamble(found),
        warnings=[f"Refused: {task}: {recipe}: {why}" for (task, recipe), why in found.refused.items()]
        + [f"Note: {note}" for note in found.notes],
        together=together,
        tasks=[
            {
                "name": task.task,
                "erased": task.erased,
                "alarms": false_alarms(task),
                "scores": _table(*task_rows(found, task)),
                "differences": _differences([task]),
                "sheets": [sheet for cell in (*LEAKS, *ATTACKS, *KEPT) if (sheet := _sheet(found, task.task, cell))],
            }
            for task in found.tasks
        ],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A table whose first column, and H_o beside it, stay in sight."""
    order = list(range(len(head)))
    balance = next((i for i in order if head[i].endswith("H_o")), None)
    if balance is not None:
        order.insert(1, order.pop(balance))
    return {
        "kind": "figures" if balance is None else "scores",
        "head": [head[i] for i in order],
        "rows": [[row[i] for i in order] for row in rows],
    }


def _differences(tasks: Sequence[TaskScores]) -> dict[str, Any] | None:
    table = differences(tasks)
    return None if table is None else _table(*table)


def _sheet(found: Findings, task: str, cell: str) -> dict[str, Any] | None:
    """The first prompts of a cell, a row each, a column for every recipe; None where it was not drawn."""
    pictures = found.pictures[task]
    fewest = min(len(seen.images) for seen in pictures.values())
    shown = [i for i, question in enumerate(found.asked[task][:fewest]) if question.cell == cell][:_SHOWN]
    if not shown:
        return None
    return {
        "cell": cell,
        "title": (LEAKS | ATTACKS | KEPT)[cell],
        "open": cell == "plain",
        "recipes": list(pictures),
        "rows": [
            (
                found.asked[task][i].prompt,
                [encode_image(seen.images[i], ImageFormat.jpg, 92) for seen in pictures.values()],
            )
            for i in shown
        ],
    }
