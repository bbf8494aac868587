"""What the dictionary says of a word beside a concept: a kind of it, a sibling, something above it, or nothing.

A concept may mean any sense of its name: which of them is asked for is the text encoder's to say, which lets only words
near the concept pass. Where a word is something to several of them the most frequent counts: a lion is a sibling of
the cat, though big cats are cats too. Of any other word the most frequent sense counts: a bus is no old car.
"""

from collections.abc import Iterator
from enum import Enum
from functools import cached_property, lru_cache

from pipeline.concepts.concept import Concept
from pipeline.concepts.dictionary import Sense, dictionary
from pipeline.concepts.normal import normal
from pipeline.concepts.words import plurals

GENERAL = 1000  # what has more kinds than this is too general to make siblings of them: an object, a plant


class Relation(Enum):
    kind = "kind"  # or a synonym
    sibling = "sibling"  # another kind of what the concept is a kind of, or a kind of such
    above = "above"  # what the concept is a kind of
    other = "other"
    unknown = "unknown"  # to the dictionary


class Kin:
    """The words of the dictionary around *concept*."""

    def __init__(self, concept: Concept):
        self._book = dictionary()
        self._senses = self._book.senses(concept.name)
        self._own = {normal(word) for word in concept.words}

    def relation(self, word: str) -> Relation:
        """Return what *word*, in the singular or the plural, is to the concept by its most frequent sense."""
        row = first_sense(word)
        if row is None:
            return Relation.unknown
        return self._relations.get(row, Relation.other)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The words whose most frequent sense is the concept or a kind of it, without the concept's own words."""
        found = (word for sense in self._senses for word in (*sense.words, *self._book.kinds(sense)))
        words = {normal(word): word for word in found}
        return tuple(w for key, w in words.items() if key not in self._own and self.relation(w) is Relation.kind)

    @cached_property
    def _relations(self) -> dict[int, Relation]:
        """What each sense that is anything to the concept is to it."""
        relations: dict[int, Relation] = {}
        for sense in self._senses:
            own = dict.fromkeys(self._siblings(sense), Relation.sibling)
            own |= dict.fromkeys(self._book.rows_above(sense), Relation.above)
            own |= dict.fromkeys(self._book.rows_below(sense), Relation.kind)
            relations = own | relations
        return relations

    def _siblings(self, sense: Sense) -> Iterator[int]:
        for parent in self._book.hypernyms(sense):
            rows = self._book.rows_below(parent)
            if len(rows) <= GENERAL:
                yield from rows


@lru_cache(maxsize=1 << 16)
def first_sense(word: str) -> int | None:
    """Return the row of what *word*, in the singular or the plural, most often means; none where no noun is known."""
    return next((sense.row for sense in senses_of(word)), None)


def senses_of(word: str) -> list[Sense]:
    """Return what *word*, in the singular or the plural, may mean, the most frequent sense first."""
    book = dictionary()
    return next((senses for form in _singulars(word) if (senses := book.senses(form))), [])


def _singulars(word: str) -> Iterator[str]:
    """Yield *word*, then what it may be the plural of."""
    yield word
    for ending in ("s", "es", "ies", "ves", "men"):
        if word.endswith(ending):
            stem = word[: -len(ending)]
            for singular in {"ies": ("y",), "ves": ("f", "fe"), "men": ("man",)}.get(ending, ("",)):
                if word in plurals(stem + singular):
                    yield stem + singular
