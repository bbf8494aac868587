"""An evaluation as one self-contained page: its tables, and pictures of every recipe side by side."""

from collections.abc import Sequence

from pipeline.config.schema import ImageFormat
from pipeline.corpus.encode import encode_image
from pipeline.evaluation.erasure.findings import Findings
from pipeline.evaluation.erasure.prompts import ATTACKS, KEPT, LEAKS
from pipeline.evaluation.erasure.tables import all_rows, differences, false_alarms, preamble, task_rows
from pipeline.pages.page import escape, page, picture

_SHOWN = 4  # prompts of each cell on a contact sheet


def evaluation_page(found: Findings) -> str:
    body = ["<h1>Erasure, judged by detector B</h1>", f"<p class=soft>{escape(preamble(found))}</p>"]
    body += [f"<p class=bad>Refused: {escape(f'{t}: {r}: {why}')}</p>" for (t, r), why in found.refused.items()]
    body += [f"<p class=bad>Note: {escape(note)}</p>" for note in found.notes]
    if len(found.tasks) > 1:
        body += ["<h2>All tasks</h2>"]
        head, _, *rows = all_rows(found)
        body.append(_table(head, rows))
        body += ["<p>Difference of the mean H_o, row less column</p>", _table(*differences(found, found.tasks))]
    for task in found.tasks:
        body += [
            f"<h2>{escape(task.task)}: {escape(', '.join(task.erased))}</h2>",
            f"<p>{escape(false_alarms(task))}.</p>",
        ]
        body += [_table(*task_rows(found, task)), "<p>Difference of H_o, row less column</p>"]
        body += [_table(*differences(found, [task])), "<p>Pictures: the same prompt and seed in a row.</p>"]
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
