"""The erasure list of a config: the concepts in it, and whether it can be obeyed.

Each word belongs to one concept, and nothing is both erased and kept. A word counts in the forms in which a
prompt may say it (``pipeline.concepts.words``): "cats" asks for the cat too.
"""

import re
from collections import defaultdict
from functools import cached_property

from pipeline.concepts.concept import Concept
from pipeline.concepts.words import folded, forms, word_pattern
from pipeline.config.problem import Problem, show
from pipeline.config.schema import ConceptConfig, ErasureConfig


def concepts_of(erasure: ErasureConfig) -> tuple[Concept, ...]:
    """Return the erasure list of a loaded config, in which the files of ``lists`` are already merged."""
    return tuple(
        Concept(
            name=c.name,
            aliases=tuple(c.aliases),
            anchor=c.anchor,
            preserve=tuple(c.preserve),
            everywhere=c.everywhere,
        )
        for c in erasure.concepts
    )


def check_concepts(concepts: list[ConceptConfig]) -> list[str]:
    """Return the concepts' names in order; ``Problem`` for a list that contradicts itself. Case does not count."""
    owners: dict[str, tuple[ConceptConfig, str]] = {}  # form of a word -> the concept that it asks for, and the word
    names: set[str] = set()
    for i, concept in enumerate(concepts):
        words = {"name": concept.name} | {f"aliases[{j}]": alias for j, alias in enumerate(concept.aliases)}
        seen: set[str] = set()
        for part, word in words.items():
            key = f"erasure.concepts[{i}].{part}"
            _check_word(key, word)
            if part == "name" and word in names:
                raise Problem(key, f"{word!r} is listed already; expected every concept once, over all lists")
            for form in sorted(forms(word)):
                owner, other = owners.setdefault(form, (concept, word))
                if owner is not concept:
                    same = "" if folded(other) == folded(word) else f", as {other!r} is to whoever reads a prompt"
                    raise Problem(
                        key, f"{word!r} is already a word for {owner.name!r}{same}; expected a word to name one concept"
                    )
            if _plain(word) in seen:
                raise Problem(key, f"{word!r} is already a word for this concept; expected further words")
            seen.add(_plain(word))
        names.add(concept.name)
    erased = _Erased(concepts)
    for i, concept in enumerate(concepts):
        if concept.anchor:
            _check_anchor(f"erasure.concepts[{i}].anchor", concept, erased)
        for j, kept in enumerate(concept.preserve):
            key = f"erasure.concepts[{i}].preserve[{j}]"
            _check_word(key, kept)
            for erasing, found in erased.in_text(kept):
                what = "this concept itself" if erasing is concept else f"the erased concept {erasing.name!r}"
                if found == kept:
                    raise Problem(key, f"{kept!r} is a word for {what}; expected what must stay unharmed")
                raise Problem(key, f"{kept!r} contains {found!r}, a word for {what}; expected other words")
            if _plain(kept) in map(_plain, concept.preserve[:j]):
                raise Problem(key, f"{kept!r} is listed already; expected every neighbour once")
    return [concept.name for concept in concepts]


class _Erased:
    """Which erased words are in a text? Only patterns with a word of the text are tried: lists have thousands."""

    def __init__(self, concepts: list[ConceptConfig]):
        self._concepts = concepts
        self._patterns: dict[int, re.Pattern[str]] = {}

    def in_text(self, text: str) -> list[tuple[ConceptConfig, str]]:
        """Return the concepts that *text* names, in order, and the words of it that do so."""
        near = {i for word in _words(text) for i in self._by_word.get(word, ())}
        found = [(self._concepts[i], self._pattern(i).search(text)) for i in sorted(near)]
        return [(concept, match[0]) for concept, match in found if match is not None]

    @cached_property
    def _by_word(self) -> dict[str, list[int]]:
        """The concepts by the first words of their forms, of which every text that names them has one."""
        found = defaultdict(list)
        for i, concept in enumerate(self._concepts):
            for form in {form for word in (concept.name, *concept.aliases) for form in forms(word)}:
                found[_words(form)[0]].append(i)
        return found

    def _pattern(self, i: int) -> re.Pattern[str]:
        if i not in self._patterns:
            self._patterns[i] = word_pattern((self._concepts[i].name, *self._concepts[i].aliases))
        return self._patterns[i]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _check_word(key: str, word: str) -> None:
    if not any(character.isalnum() for character in word):
        raise Problem(key, f"is {show(word)}; expected a word")
    if "," in word or "\n" in word:  # commas join concepts in the manifest's reasons
        raise Problem(key, f"is {show(word)}; expected one word or phrase without commas (aliases take several)")
    if word != word.strip():
        raise Problem(key, f"is {show(word)}; expected no blanks around it")


def _check_anchor(key: str, concept: ConceptConfig, erased: _Erased) -> None:
    """What stands in a concept's place is drawn and captioned: no erased word, of whatever concept, may be in it."""
    anchor = concept.anchor
    _check_word(key, anchor)
    for other, found in erased.in_text(anchor):
        if found != anchor:
            whose = "" if other is concept else f", a word for {other.name!r}"
            raise Problem(key, f"{anchor!r} contains {found!r}{whose}, which is to be erased; expected other words")
        if other is concept:
            raise Problem(key, f"{anchor!r} is the concept itself; expected what stands in its place, or nothing")
        raise Problem(key, f"{anchor!r} is a word for the erased concept {other.name!r}; expected one that is kept")


def _plain(word: str) -> str:
    return " ".join(word.casefold().split())
