"""The erasure list of a config: the concepts in it, and whether it can be obeyed.

Each word belongs to one concept, and nothing is both erased and kept. A word counts in the forms in which a
prompt may say it (``pipeline.concepts.words``): "cats" asks for the cat too.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming
from pipeline.concepts.normal import normal, pieces
from pipeline.concepts.term import Kind
from pipeline.concepts.words import forms
from pipeline.config.problem import Problem, show
from pipeline.config.schema import Audited, ConceptConfig, ErasureConfig


def concepts_of(erasure: ErasureConfig) -> tuple[Concept, ...]:
    """Return the erasure list of a loaded config, in which the files of ``lists`` are already merged."""
    return tuple(map(_concept, erasure.concepts))


def check_concepts(concepts: list[ConceptConfig]) -> list[str]:
    """Return the concepts' names in order; ``Problem`` for a list that contradicts itself. Case does not count."""
    owners: dict[str, tuple[ConceptConfig, str]] = {}  # form of a word -> the concept that it asks for, and the word
    names: set[str] = set()
    for i, concept in enumerate(concepts):
        words = {"name": concept.name} | {f"aliases[{j}]": alias for j, alias in enumerate(concept.aliases)}
        seen: set[str] = set()
        for part, word in words.items():
            key = f"erasure.concepts[{i}].{part}"
            check_word(key, word)
            if part == "name" and word in names:
                raise Problem(key, f"{word!r} is listed already; expected every concept once, over all lists")
            for form in sorted(forms(word)):
                owner, other = owners.setdefault(form, (concept, word))
                if owner is not concept:
                    same = "" if normal(other) == normal(word) else f", as {other!r} is to whoever reads a prompt"
                    raise Problem(
                        key, f"{word!r} is already a word for {owner.name!r}{same}; expected a word to name one concept"
                    )
            if _plain(word) in seen:
                raise Problem(key, f"{word!r} is already a word for this concept; expected further words")
            seen.add(_plain(word))
        names.add(concept.name)
    erasing = tuple(map(_concept, concepts))
    naming = Naming(erasing)
    for i, own in enumerate(erasing):
        key = f"erasure.concepts[{i}]"
        for j, phrase in enumerate(own.keep):
            _check_exception(f"{key}.keep[{j}]", phrase, own, j)
        if own.anchor:
            _check_anchor(f"{key}.anchor", own, naming)
        for j, kept in enumerate(own.preserve):
            _check_neighbour(f"{key}.preserve[{j}]", kept, own, j, naming)
        for part in ("proven", "implied", "ignore"):
            for j, word in enumerate(getattr(own, part)):
                _check_unlisted(f"{key}.{part}[{j}]", word, naming)
    _check_contradictions(erasing)
    return [concept.name for concept in concepts]


def _concept(c: ConceptConfig) -> Concept:
    return Concept(
        name=c.name,
        aliases=tuple(c.aliases),
        anchor=c.anchor,
        preserve=tuple(c.preserve),
        keep=tuple(c.keep),
        proven=tuple(c.proven),
        implied=tuple(c.implied),
        ignore=tuple(c.ignore),
        everywhere=c.everywhere or c.kind is Kind.style,
        kind=c.kind,
        references=tuple(map(Path, c.references)),
        audited=c.audit is not Audited.none,
    )


def check_word(key: str, word: str) -> None:
    """Raise ``Problem`` for what no concept could be called by."""
    # A pictograph is a word too, other signs and punctuation are none.
    if not any(unicodedata.category(piece.text[0])[0] in "LN" or _is_pictograph(piece.text) for piece in pieces(word)):
        raise Problem(key, f"is {show(word)}; expected a word")
    if "," in word or "\n" in word:  # commas join concepts in the manifest's reasons
        raise Problem(key, f"is {show(word)}; expected one word or phrase without commas (aliases take several)")
    if word != word.strip():
        raise Problem(key, f"is {show(word)}; expected no blanks around it")


def _is_pictograph(piece: str) -> bool:
    return unicodedata.category(piece[0]) == "So"


def _check_exception(key: str, phrase: str, concept: Concept, place: int) -> None:
    """An exception has a word of its own concept in it, and more."""
    check_word(key, phrase)
    own = Naming([replace(concept, keep=())])
    if own.is_word(phrase):
        raise Problem(key, f"{phrase!r} is a word for this concept; expected a phrase that means something else")
    if not own.names(phrase):
        raise Problem(
            key,
            f"{phrase!r} has no word of {concept.name!r} in it; expected a phrase that has one and means something "
            "else (what merely is to stay unharmed stands in preserve)",
        )
    if normal(phrase) in map(normal, concept.keep[:place]):
        raise Problem(key, f"{phrase!r} is listed already; expected every exception once")


def _check_neighbour(key: str, kept: str, concept: Concept, place: int, naming: Naming) -> None:
    check_word(key, kept)
    for mention in naming.mentions(kept):
        own = mention.concept == concept
        what = "this concept itself" if own else f"the erased concept {mention.concept.name!r}"
        found = kept[mention.start : mention.stop]
        if found == kept:
            raise Problem(key, f"{kept!r} is a word for {what}; expected what must stay unharmed")
        where = "here" if own else f"of {mention.concept.name!r}"
        raise Problem(
            key,
            f"{kept!r} contains {found!r}, a word for {what}; expected other words (or, where it means something "
            f"else, list it under keep {where})",
        )
    if _plain(kept) in map(_plain, concept.preserve[:place]):
        raise Problem(key, f"{kept!r} is listed already; expected every neighbour once")


def _check_unlisted(key: str, word: str, naming: Naming) -> None:
    """A word that only the gate is to know, or to leave alone, is no listed one."""
    check_word(key, word)
    if naming.is_word(word):
        raise Problem(key, f"{word!r} is listed among the words of a concept; expected one that no list has")


def _check_contradictions(concepts: Sequence[Concept]) -> None:
    """A word has one answer of a concept, is proven of one concept and implies no other, and nothing that is to stay
    unharmed, or takes a concept's place, brings one into play."""
    unharmed = {
        form: (word, concept)
        for concept in concepts
        for word in (*concept.preserve, concept.anchor)
        if word
        for form in forms(word)
    }
    claims: dict[str, tuple[str, Concept]] = {}  # form -> what it is said to be of which concept
    for i, concept in enumerate(concepts):
        answers: dict[str, str] = {}  # form -> the part of this concept that has it
        for part in ("keep", "proven", "implied", "ignore"):
            for j, word in enumerate(getattr(concept, part)):
                key, own = f"erasure.concepts[{i}].{part}[{j}]", sorted(forms(word))
                for other in (answers[form] for form in own if form in answers):
                    if other == part:
                        raise Problem(key, f"{word!r} is listed already; expected every word once")
                    raise Problem(key, f"{word!r} stands under {other} already; expected it under one of the two")
                answers |= dict.fromkeys(own, part)
                if part in ("proven", "implied"):
                    for kept, whose in (unharmed[form] for form in own if form in unharmed):
                        place = "the anchor" if kept == whose.anchor else "to be preserved"
                        raise Problem(
                            key, f"{word!r} is {place} of {whose.name!r}; expected it there or here, not both"
                        )
                    for claim, whose in (claims.setdefault(form, (part, concept)) for form in own):
                        if whose is not concept and "proven" in (part, claim):
                            raise Problem(
                                key,
                                f"{word!r} is {claim} of {whose.name!r}; expected a word that means one concept to be "
                                "neither proven nor implied of another",
                            )


def _check_anchor(key: str, concept: Concept, naming: Naming) -> None:
    """What stands in a concept's place is drawn and captioned: no erased word, of whatever concept, may be in it."""
    anchor = concept.anchor
    check_word(key, anchor)
    for mention in naming.mentions(anchor):
        other, found = mention.concept, anchor[mention.start : mention.stop]
        if found != anchor:
            whose = "" if other == concept else f", a word for {other.name!r}"
            raise Problem(key, f"{anchor!r} contains {found!r}{whose}, which is to be erased; expected other words")
        if other == concept:
            raise Problem(key, f"{anchor!r} is the concept itself; expected what stands in its place, or nothing")
        raise Problem(key, f"{anchor!r} is a word for the erased concept {other.name!r}; expected one that is kept")


def _plain(word: str) -> str:
    return " ".join(word.casefold().split())
