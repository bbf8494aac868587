"""A term: what a detector is asked about, a concept to erase or what stands in its place."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Self


class Kind(StrEnum):
    """What sort of thing a concept is, and so how it can be seen in a picture."""

    object = "object"  # it has a place in the picture
    style = "style"  # it is all over the picture
    identity = "identity"  # one certain person, or thing
    policy = "policy"  # what a rule forbids, told in words: "shows a crime"


class Term(str):
    """The name of a concept or an anchor, with what else a detector may know it by.

    It is a ``str``, so that a detector which goes by names alone need know no more.
    """

    words: tuple[str, ...]  # the name, its aliases, then the words that were proved to draw it
    kind: Kind
    references: tuple[Path, ...]  # pictures of the user's own that show it

    def __new__(
        cls, name: str, words: Iterable[str] = (), kind: Kind = Kind.object, references: Iterable[Path] = ()
    ) -> Self:
        """Without *words* the name is the only one."""
        term = super().__new__(cls, name)
        term.words = tuple(words) or (str(name),)
        term.kind = kind
        term.references = tuple(references)
        return term
