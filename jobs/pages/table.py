"""What the tables of the READMEs share: results by name, cells as text, and the lines on what made a table."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.evaluation.results import ROOT, read_result

ERASURE, SPEED = "pipeline/evaluation/results", "jobs/results"
DEFAULT = "uce 1000 + cease"  # the recommended recipe, by its name in configs/evaluation/*.yaml

Row = Sequence[str]


def place(name: str) -> Path:
    """Return where the results file *name* lies."""
    return ROOT / name


def result(name: str) -> dict[str, Any]:
    return read_result(place(name))


def markdown(head: Row, rows: Sequence[Row]) -> str:
    rule = "|" + "---|" * len(head)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(cells)} |" for cells in rows)])


def made_by(page: Path, *names: str) -> str:
    """The lines under a table: a line for each results file that it is rendered from."""
    lines = []
    for name in names:
        found = result(name)
        link = f"[{Path(name).name}]({os.path.relpath(place(name), page.parent)})"
        here = found["environment"]
        machine = [here.get("gpu") or here.get("cpu"), f"{here['cores']} cores" if "cores" in here else None]
        machine += [f"load {here['load']:g} before" if "load" in here else None]
        said = ", ".join(part for part in machine if part)
        lines.append(f"{link}: {measured(found)}; {said + '; ' if said else ''}`{found['command']}`")
    return "\n\n" + "  \n".join(lines)


def measured(found: Mapping[str, Any]) -> str:
    """Day and commit, and whether the figures were transcribed."""
    version = found["version"]
    commit = (
        f"{version['commit'][:7]}{' with changes' if version.get('changed') else ''}" if "commit" in version else "?"
    )
    return f"{found['date']}, {commit}{', transcribed' if found.get('transcribed') else ''}"


def of(pair: Sequence[int] | None) -> str:
    return "" if pair is None else f"{pair[0]:,} of {pair[1]:,}"


def interval(values: Mapping[str, float], digits: int, scale: float = 1.0) -> str:
    """``value (low to high)``, as far as the ends are known."""
    said = {key: f"{scale * value:.{digits}f}" for key, value in values.items()}
    if "high" in said:
        return f"{said['value']} ({said['low']} to {said['high']})"
    return f"{said['value']} (at least {said['low']})" if "low" in said else said["value"]
