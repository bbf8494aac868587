"""Weights and breaks in prompts, as A1111's web UI reads them ("attention/emphasis" and BREAK, in its wiki's Features):

``(text)`` weighs 1.1 times as much, ``[text]`` 1/1.1, ``(text:1.3)`` 1.3 times; they nest and multiply. A backslash
takes the meaning of a bracket, or of another backslash, away. A bracket that nothing closes reaches to the end; one
that closes nothing, and a ``:1.3)`` that does, are text. ``BREAK`` begins a new chunk.

Its other syntax (``[from:to:when]``, ``[a|b]``, AND, ``<lora:...>``) changes what is drawn from step to step, or by
what model, and is read as the text and brackets that it is made of. Knows text only.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BRACKETS = {"(": 1.1, "[": 1 / 1.1}
_CLOSING = {")": "(", "]": "["}
_BREAK = "BREAK"
_TOKEN = re.compile(
    r"\\(?P<escaped>[()\[\]\\])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    rf"|(?P<break>\s*\b{_BREAK}\b\s*)"
    r"|\w+|.",
    re.DOTALL,
)


@dataclass
class Run:
    """Text of one weight; character i of it is character ``places[i]`` of the prompt."""

    text: str
    weight: float
    places: Sequence[int]


def parse(prompt: str) -> list[list[Run]]:
    """Return the runs of each part of *prompt* between breaks. A break at the end begins nothing."""
    parts: list[list[Run]] = [[]]
    every: list[Run] = []
    opened: dict[str, list[int]] = {bracket: [] for bracket in BRACKETS}  # how many runs stood before each

    def close(bracket: str, factor: float) -> None:
        for run in every[opened[bracket].pop() :]:
            run.weight *= factor

    for match in _TOKEN.finditer(prompt):
        token, start = match[0], match.start()
        closed = _CLOSING.get(token, "")
        if match["break"]:
            parts.append([])
        elif match["weight"] and opened["("]:
            close("(", float(match["weight"]))
        elif token in opened:
            opened[token].append(len(every))
        elif closed and opened[closed]:
            close(closed, BRACKETS[closed])
        else:
            text, start = (match["escaped"], start + 1) if match["escaped"] else (token, start)
            every.append(Run(text, 1.0, list(range(start, start + len(text)))))
            parts[-1].append(every[-1])
    for bracket, factor in BRACKETS.items():
        while opened[bracket]:
            close(bracket, factor)
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    return [_merged(part) for part in parts]


def written(parts: Sequence[Sequence[Run]]) -> str:
    """Return a prompt that ``parse`` reads as *parts*, but for their places."""
    return f" {_BREAK} ".join("".join(_weighed(run) for run in part if run.text) for part in parts)


def escaped(text: str) -> str:
    """Return a prompt that is read as *text*, without weights."""
    return re.sub(r"([()\[\]\\])", r"\\\1", text)


def _weighed(run: Run) -> str:
    if run.weight == 1:
        return escaped(run.text)
    return f"({escaped(run.text)}:{np.format_float_positional(run.weight, trim='-')})"  # an exponent would be text


def _merged(runs: Sequence[Run]) -> list[Run]:
    """Join neighbours of one weight: what is tokenized together."""
    merged: list[Run] = []
    for run in runs:
        if merged and merged[-1].weight == run.weight:
            merged[-1] = Run(merged[-1].text + run.text, run.weight, [*merged[-1].places, *run.places])
        else:
            merged.append(run)
    return merged
