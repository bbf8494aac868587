"""How long a figure will likely take, by those that were taken: none is begun that would not be done in time."""

from collections.abc import Mapping
from typing import Any

# Figures by another of the same family, and how many times its seconds they take at most. What "ours, compiled" has
# compiled for the others they compile again in a later call, whose time is not short then.
LIKE = {
    "cease none, compiled": ("cease none, eager", 2.0),
    "cease all, compiled": ("ours, compiled", 2.0),  # two or three kinds of the denoiser, and no decoder
    "unconcerned, compiled": ("unconcerned, eager", 2.0),
    "diffusers, compiled": ("ours, compiled", 1.25),
    "again, compiled": ("ours, compiled", 1.0),
    "again, compiled anew": ("ours, compiled", 1.25),
}
UNKNOWN = {True: 120.0, False: 20.0}  # seconds of what is compiled, or eager, where nothing is known
STARTING = 20.0  # seconds until a process has imported and has its model


def expected(figures: Mapping[str, Mapping[str, Mapping[str, Any]]], family: str, figure: str) -> float:
    """Return the seconds that *figure* of *family* will likely take, with *figures* taken of all families."""
    like, times = LIKE.get(figure, ("", 1.0))
    if (known := _took(figures.get(family, {}).get(like))) is not None:
        return times * known
    of_others = [seconds for other in figures.values() if (seconds := _took(other.get(figure))) is not None]
    return max(of_others, default=UNKNOWN["compiled" in figure])


def _took(found: Mapping[str, Any] | None) -> float | None:
    return None if found is None or "failed" in found else found.get("took")
