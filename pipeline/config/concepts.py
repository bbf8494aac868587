"""Can this erasure list be obeyed? Each word belongs to one concept, and nothing is both erased and kept."""

import re

from pipeline.config.problem import Problem, show
from pipeline.config.schema import ConceptConfig


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
    for i, concept in enumerate(concepts):
        if concept.anchor:
            _check_anchor(f"erasure.concepts[{i}].anchor", concept, owners)
        for j, kept in enumerate(concept.preserve):
            key = f"erasure.concepts[{i}].preserve[{j}]"
            _check_word(key, kept)
            for word, whose in owners.items():
                what = "this concept itself" if whose == concept.name else f"the erased concept {whose!r}"
                if _folded(kept) == word:
                    raise Problem(key, f"{kept!r} is a word for {what}; expected what must stay unharmed")
                if _contains(_folded(kept), word):
                    raise Problem(key, f"{kept!r} contains {word!r}, a word for {what}; expected other words")
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


def _check_anchor(key: str, concept: ConceptConfig, owners: dict[str, str]) -> None:
    anchor = _folded(concept.anchor)
    _check_word(key, concept.anchor)
    whose = owners.get(anchor)
    if whose == concept.name:
        raise Problem(key, f"{concept.anchor!r} is the concept itself; expected what stands in its place, or nothing")
    if whose is not None:
        raise Problem(key, f"{concept.anchor!r} is a word for the erased concept {whose!r}; expected one that is kept")
    for word, owner in owners.items():
        if owner == concept.name and _contains(anchor, word):
            raise Problem(key, f"{concept.anchor!r} contains {word!r}, which is to be erased; expected other words")


def _contains(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _folded(word: str) -> str:
    return " ".join(word.casefold().split())
