"""The words of everyday pictures that ship with Lacuna: 20,000, the most frequent in English first.

``jobs/make_vocabulary.py`` makes the file. What a sweep may draw is taken from it, and a text gate measures on it how
near words come to a concept that have nothing to do with it.
"""

from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("vocabulary.txt")


@cache
def everyday() -> tuple[str, ...]:
    """Return the words, the most frequent first."""
    return tuple(line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
