"""Can this erasure list be obeyed? Each word belongs to one concept, and nothing is both erased and kept.

A word counts in the forms in which a prompt may say it (``word_pattern``): "cats" asks for the cat too.
"""

import re

from pipeline.config.problem import Problem, show
from pipeline.config.schema import ConceptConfig
from pipeline.words import word_pattern


def check_concepts(concepts: list[ConceptConfig]) -> list[str]:
    """Return the concepts' names in order; ``Problem`` for a list that contradicts itself. Case does not count."""
    owners: dict[str, str] = {}  # folded word -> name of the concept that it asks for
    for i, concept in enumerate(concepts):
        words = {"name": concept.name} | {f"aliases[{j}]": alias for j, alias in enumerate(concept.aliases)}
        for part, word in words.items():
            key = f"erasure.concepts[{i}].{part}"
            _check_word(key, word)
            owner = owners.setdefault(_folded(word), concept.name)
            if part == "name" and owner == concept.name and i and concept.name in [c.name for c in concepts[:i]]:
                raise Problem(key, f"{word!r} is listed already; expected every concept once, over all lists")
            if owner != concept.name:
                raise Problem(key, f"{word!r} is already a word for {owner!r}; expected a word to name one concept")
            if part != "name" and _folded(word) in map(_folded, list(words.values())[: list(words).index(part)]):
                raise Problem(key, f"{word!r} is already a word for this concept; expected further words")
    patterns = [(concept, word_pattern((concept.name, *concept.aliases))) for concept in concepts]
    for i, concept in enumerate(concepts):
        if concept.anchor:
            _check_anchor(f"erasure.concepts[{i}].anchor", concept, patterns)
        for j, kept in enumerate(concept.preserve):
            key = f"erasure.concepts[{i}].preserve[{j}]"
            _check_word(key, kept)
            for other, pattern in patterns:
                what = "this concept itself" if other is concept else f"the erased concept {other.name!r}"
                found = pattern.search(kept)
                if found and found[0] == kept:
                    raise Problem(key, f"{kept!r} is a word for {what}; expected what must stay unharmed")
                if found:
                    raise Problem(key, f"{kept!r} contains {found[0]!r}, a word for {what}; expected other words")
            if _folded(kept) in map(_folded, concept.preserve[:j]):
                raise Problem(key, f"{kept!r} is listed already; expected every neighbour once")
    return [concept.name for concept in concepts]


def _check_word(key: str, word: str) -> None:
    if not any(character.isalnum() for character in word):
        raise Problem(key, f"is {show(word)}; expected a word")
    if "," in word or "\n" in word:  # commas join concepts in the manifest's reasons
        raise Problem(key, f"is {show(word)}; expected one word or phrase without commas (aliases take several)")
    if word != word.strip():
        raise Problem(key, f"is {show(word)}; expected no blanks around it")


def _check_anchor(key: str, concept: ConceptConfig, patterns: list[tuple[ConceptConfig, re.Pattern[str]]]) -> None:
    """What stands in a concept's place is drawn and captioned: no erased word, of whatever concept, may be in it."""
    anchor = concept.anchor
    _check_word(key, anchor)
    for other, pattern in patterns:
        found = pattern.search(anchor)
        if found is None:
            continue
        if found[0] != anchor:
            whose = "" if other is concept else f", a word for {other.name!r}"
            raise Problem(key, f"{anchor!r} contains {found[0]!r}{whose}, which is to be erased; expected other words")
        if other is concept:
            raise Problem(key, f"{anchor!r} is the concept itself; expected what stands in its place, or nothing")
        raise Problem(key, f"{anchor!r} is a word for the erased concept {other.name!r}; expected one that is kept")


def _folded(word: str) -> str:
    return " ".join(word.casefold().split())
