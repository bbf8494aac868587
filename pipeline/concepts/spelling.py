"""Words that nobody knows and that may be a listed one after all: misspelt, or joined to another word.

No rule can tell "chruch" from an invented name, so this only proposes: a text encoder that has such a word near the
concept decides (``pipeline.erasure.gate.measure``).
"""

from collections.abc import Iterable
from functools import lru_cache

from pipeline.concepts.everyday import everyday
from pipeline.concepts.kin import first_sense
from pipeline.concepts.normal import normal
from pipeline.concepts.words import forms

SPELT = 5  # letters of a word at least of which misspellings are told: beside a shorter one lie too many other words
JOINED = 3  # letters of each part of a compound at least


class Spelling:
    """Knows *words* by what is written for them by mistake, and by the compounds that they are part of."""

    def __init__(self, words: Iterable[str]):
        written = {form for word in words for form in forms(word) if form.isalpha()}
        self._spelt = {form for form in written if len(form) >= SPELT}
        self._joined = {form for form in written if len(form) >= JOINED}

    def proposes(self, word: str) -> bool:
        """Tell whether *word*, which neither dictionary nor vocabulary has, may be one of the words.

        That is: one letter was left out, put in, changed or swapped with the next, though not the first, as is rare; or
        it begins or ends with one of the words, and the rest of it is a noun.
        """
        word = normal(word)
        if not word.isalpha() or is_known(word):
            return False
        if any(one_edit(word, form) for form in self._spelt):
            return True
        rests = [word.removeprefix(form) for form in self._joined if word.startswith(form)]
        rests += [word.removesuffix(form) for form in self._joined if word.endswith(form)]
        return any(len(rest) >= JOINED and first_sense(rest) is not None for rest in rests)


def is_known(word: str) -> bool:
    """Tell whether *word*, in the normal form, is a noun of the dictionary, in the plural too, or an everyday word."""
    return first_sense(word) is not None or word in _everyday()


def one_edit(word: str, other: str) -> bool:
    """Tell whether *word* is *other* with one letter left out, put in, changed or swapped with the next, not the first.

    >>> one_edit("chruch", "church"), one_edit("chuch", "church"), one_edit("lurch", "church")
    (True, True, False)
    """
    if word == other or word[:1] != other[:1] or abs(len(word) - len(other)) > 1:
        return False
    same = next((i for i, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other)))
    a, b = word[same:], other[same:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


@lru_cache(maxsize=1)
def _everyday() -> frozenset[str]:
    return frozenset(map(normal, everyday()))
