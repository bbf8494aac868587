"""How far a prompt is read, and what it says so far, part by part."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.models.emphasis import Run


class Part(NamedTuple):
    """What a prompt says between two of its breaks, as plain text. Characters ``silent`` (start, stop) weigh 0 or less;
    ``cut`` tells that more follows, which is not read."""

    text: str
    silent: tuple[tuple[int, int], ...] = ()
    cut: bool = False

    @classmethod
    def of(cls, runs: Sequence[Run], cut: bool = False) -> "Part":
        """Return what the *runs* say."""
        text, silent = "", list[tuple[int, int]]()
        for run in runs:
            if run.weight <= 0:
                silent.append((len(text), len(text) + len(run.text)))
            text += run.text
        return cls(text, tuple(silent), cut)


class Extent(NamedTuple):
    """How far a prompt is read: ``read`` tokens of it, special ones aside, and ``unread`` not.

    ``told`` is the prompt so far as it is read, ``said`` the same part by part, without a word that is read in part;
    ``asked`` are the parts of the whole prompt.
    """

    read: int
    unread: int
    told: str
    said: tuple[Part, ...]
    asked: tuple[Part, ...]

    @property
    def whole(self) -> str:
        """What is ``said`` in one text."""
        return in_one([part.text for part in self.said])


def in_one(texts: Sequence[str]) -> str:
    """Return what the parts of a prompt say, *texts*, in one."""
    return texts[0] if len(texts) == 1 else ", ".join(stripped for text in texts if (stripped := text.strip(" ,")))
