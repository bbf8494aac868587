"""Does a text name a concept, and where? The one definition, for gate, captions, plan, edits and attack alike.

A concept is named by its name and its aliases, in the singular or the plural, wherever they stand between word borders
in the normal form of the text (``normal``). Of listed words that overlap the longest is meant: "machine gun" of a
rifle, and no "gun" in it. So an exception (``keep``) holds: "hot dog", of a dog, names no dog, and "hotdog" neither.

No understanding: what it cannot see are misspellings, words that nobody listed, and things implied but not said. Those
are the gate's part, and the detector's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pipeline.concepts.concept import Concept
from pipeline.concepts.normal import normal
from pipeline.concepts.trie import Found, Trie
from pipeline.concepts.words import forms


@dataclass(frozen=True)
class Mention:
    """Characters ``start:stop`` of a text name ``concept``, by its listed ``word``, in the plural or not."""

    concept: Concept
    word: str
    start: int
    stop: int
    plural: bool


class _Form(NamedTuple):
    """A form of a word of concept ``owner``, or of a phrase that is an exception to it."""

    owner: int
    word: str
    plural: bool
    kept: bool


class Naming:
    """Finds what names *concepts*. Its words are found in any text at the cost of a look-up a word of that text."""

    def __init__(self, concepts: Iterable[Concept], *, proven: bool = False):
        """With *proven* also by the words that pictures proved."""
        self.concepts = tuple(concepts)
        self._trie: Trie[_Form] = Trie()
        for i, concept in enumerate(self.concepts):
            own = (*concept.words, *concept.proven) if proven else concept.words
            for word in own:
                self._add(_Form(i, word, False, False), word)
            told = {form for word in (*own, *concept.implied) for form in forms(word)}
            for phrase in concept.keep:
                for written in {phrase} | ({normal(phrase).replace(" ", "")} - told):
                    self._add(_Form(i, phrase, False, True), written)

    def _add(self, singular: _Form, written: str) -> None:
        """Have a word found as it is *written*, and in the plural."""
        for form in forms(written):
            self._trie.add(form, singular._replace(plural=form != normal(written)))

    @classmethod
    def of_words(cls, words: Sequence[str]) -> "Naming":
        """Return what finds any of *words*, as if they were the words of one concept; nothing where there are none."""
        return cls([Concept(name=words[0], aliases=tuple(words[1:]))] if words else [])

    def mentions(self, text: str) -> list[Mention]:
        """Return what in *text* names the concepts, in the order of the text; none overlap."""
        return [
            Mention(self.concepts[form.owner], form.word, start, stop, form.plural)
            for start, stop, form in self._longest(text)
            if not form.kept
        ]

    def exceptions(self, text: str) -> list[Mention]:
        """Return the phrases of *text* that are exceptions to a concept, likewise."""
        return [
            Mention(self.concepts[form.owner], form.word, start, stop, form.plural)
            for start, stop, form in self._longest(text)
            if form.kept
        ]

    def names(self, text: str) -> bool:
        """Tell whether *text* names any of the concepts."""
        return bool(self.mentions(text))

    def is_word(self, text: str) -> bool:
        """Tell whether *text* is, as a whole, one of their words."""
        whole = normal(text)
        return any(not form.kept and normal(text[start:stop]) == whole for start, stop, form in self._trie.find(text))

    def _longest(self, text: str) -> list[Found[_Form]]:
        """Return words and exceptions, in order. What overlaps a longer word is not meant; what overlaps a longer
        exception of its own concept neither."""
        found = self._trie.find(text)
        if len(found) > 1 or any(one.value.kept for one in found):
            found.sort(key=lambda one: (one.start - one.stop, one.value.plural, one.start, one.value.owner))
            meant: list[Found[_Form]] = []
            for one in found:
                if not any(_rules_out(longer, one) for longer in meant):
                    meant.append(one)
            found = sorted(meant, key=lambda one: (one.start, one.value.owner))
        return found


def mentions(text: str, concept: Concept) -> bool:
    """Tell whether *text* names *concept*, of all concepts alone."""
    return naming(concept).names(text)


@lru_cache(maxsize=1024)
def naming(concept: Concept) -> Naming:
    """Return what finds the words of *concept* alone."""
    return Naming([concept])


def _rules_out(longer: Found[_Form], one: Found[_Form]) -> bool:
    if one.start >= longer.stop or one.stop <= longer.start:
        return False
    same = one.value.owner == longer.value.owner
    return same or not (one.value.kept or longer.value.kept)
