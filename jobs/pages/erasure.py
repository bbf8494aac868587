"""Tables of erasure on the built-in model: evaluations, the model itself, and CEASE part by part."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.pages.table import ERASURE, Row, interval, made_by, markdown, of, result

_CELLS = {
    "named": "named", "synonym": "unlisted synonym", "implied": "implied", "scene": "in a scene",
    "neighbour": "neighbour kept", "unrelated": "unrelated kept", "beside": "other of the scene kept",
    "embeddings": "attack by embeddings", "attack": "attack by search",
}  # fmt: skip


def erasure_table(name: str) -> Callable[[Path], str]:
    """All tasks of an evaluation together, a row a recipe."""

    def render(page: Path) -> str:
        recipes: dict[str, Any] = result(name)["figures"]["all"]
        more = {
            "H_o": ("mean H_o, % (95 %)", lambda value: interval(value, 1, 100)),
            "time": ("time", lambda value: f"{value['concerned']:.2f}"),
        }
        return markdown(*_rows([([recipe], row) for recipe, row in recipes.items()], ["recipe"], more)) + made_by(
            page, name
        )

    return render


def erasure_tasks(name: str, recipes: Sequence[str]) -> Callable[[Path], str]:
    """An evaluation task by task, of these *recipes* alone."""

    def render(page: Path) -> str:
        tasks: dict[str, dict[str, Any]] = result(name)["figures"]["tasks"]
        rows = [
            ([task, recipe], found[recipe]) for task, found in tasks.items() for recipe in recipes if recipe in found
        ]
        more = {
            "H_o": ("H_o, % (95 %)", lambda value: interval(value, 1, 100)),
            "outside": ("outside, dB", lambda value: f"{value:.1f}"),
        }
        return markdown(*_rows(rows, ["erased", "recipe"], more)) + made_by(page, name)

    return render


def _rows(
    found: Sequence[tuple[Row, Mapping[str, Any]]], head: Row, more: Mapping[str, tuple[str, Callable[[Any], str]]]
) -> tuple[Row, Sequence[Row]]:
    """Head and rows of a table: the cells that any row has, then of *more* (title, how to say) what any row has."""
    cells = [cell for cell in _CELLS if any(cell in row for _, row in found)]
    others = [key for key in more if any(key in row for _, row in found)]
    rows = [
        [*names, *(of(row.get(cell)) for cell in cells), *(more[k][1](row[k]) if k in row else "" for k in others)]
        for names, row in found
    ]
    return [*head, *(_CELLS[cell] for cell in cells), *(more[key][0] for key in others)], rows


def differences(page: Path) -> str:
    """By how many points of H_o cease alone is ahead of the others."""
    name = f"{ERASURE}/erasure.json"
    found: dict[str, dict[str, float]] = result(name)["figures"]["differences"]["cease"]
    rows = [
        [other, "{value:.2g} ({low:.2g} to {high:.2g})".format(**{key: 100 * end for key, end in value.items()})]
        for other, value in found.items()
    ]
    return markdown(["ahead of", "points of H_o (95 %)"], rows) + made_by(page, name)


def diorama(page: Path) -> str:
    """The scores of the built-in model, as its card has them."""
    from pipeline.diorama.suite.card import from_json, scores_text

    name = f"{ERASURE}/diorama.json"
    found = result(name)
    return scores_text(from_json(found["figures"]) | {"settings": found["config"]}).rstrip() + made_by(page, name)


def methods(page: Path) -> str:
    """No measurement: what methods require and families offer."""
    from pipeline.erasure.table import family_table

    return family_table().rstrip()


def ablation(page: Path) -> str:
    name = f"{ERASURE}/ablate_cease.json"
    columns = ("plain", "synonym", "implied", "attack", "other", "apart", "apart20", "same", "score")
    rows = []
    for variant, row in result(name)["figures"].items():
        cells = ["" if c not in row else f"{row[c]:.1f}" if c == "apart" else f"{row[c]:.2f}" for c in columns]
        rows.append([variant, *cells])
    return markdown(["variant", *columns], rows) + made_by(page, name)


def gates(page: Path) -> str:
    name = f"{ERASURE}/ablate_gates.json"
    counts, edges = ("asked, seen", "asked, unseen", "neither", "shown unasked"), ("99 % of asked", "most of neither")
    rows = [
        [gate, *(of(row[column]) for column in counts), *(f"{row[c]:.2f}" if c in row else "" for c in edges)]
        for gate, row in result(name)["figures"].items()
    ]
    return markdown(["gate", *counts, *edges], rows) + made_by(page, name)
