"""Which labels of a classifier stand for which concept: by a table, by name, or because WordNet calls them kinds of it.

A label is what a checkpoint calls a class ("tabby, tabby cat": synonyms, joined by commas), with WordNet's id where it
is known. A concept's labels are, the first of these that gives any:

1. those that the user's table names for it;
2. those that have one of its words as a name, in the singular or the plural, and all kinds of what those mean; and of
   what its own name means, where that covers them (a gun that is called a revolver too is a rifle as well);
3. those that are kinds of one sense of one of its words. Of senses that have labels under them it is the one that has
   most of the concept's words, then the most frequent one.

``senses`` settles what a concept means where this does not ("crane", the bird or the machine).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.concepts.dictionary import Sense, dictionary
from pipeline.concepts.mentions import Naming
from pipeline.concepts.normal import normal
from pipeline.concepts.term import Term
from pipeline.concepts.words import forms
from pipeline.errors import ConfigError, nearest

_PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"))  # ending, singular's
_ID = re.compile(r"(n\d{8})\b[ ,:_-]*(.*)")


@dataclass(frozen=True)
class Label:
    """A class of a classifier: ``text`` as the checkpoint has it, and WordNet's ``id`` of its sense if known."""

    text: str
    id: str = ""

    @classmethod
    def read(cls, text: str) -> "Label":
        """Read what a checkpoint calls a class; one that begins with a WordNet id ("n02123045 tabby") tells it."""
        match = _ID.fullmatch(text)
        return cls(match[2] or match[1], match[1]) if match else cls(text)

    @property
    def names(self) -> list[str]:
        return [name for part in self.text.split(",") if (name := part.strip())]

    @cached_property
    def sense(self) -> Sense | None:
        """That of ``id``, or else the most frequent one that has all the names, or of the first name that has any."""
        known = dictionary()
        if self.id:
            try:
                return known.sense(self.id)
            except KeyError:
                return None
        found = [senses for name in self.names if (senses := known.senses(name))]
        shared = [sense for sense in found[0] if all(sense in senses for senses in found)] if found else []
        return (shared or found[0])[0] if found else None


class Labels:
    """The labels of one classifier, in the order of its outputs, and which of them stand for a concept."""

    def __init__(
        self,
        where: str,
        labels: Sequence[Label],
        table: Mapping[str, Sequence[str]] | None = None,
        senses: Mapping[str, str] | None = None,
    ):
        """*table* gives labels by concept, *senses* WordNet ids by concept. *where* begins each message.

        Raises ``ConfigError`` for a label that the classifier has not, and an id that is no sense of the dictionary.
        """
        self.where = where
        self.labels = tuple(labels)
        self._table = {concept: self._columns_named(concept, names) for concept, names in _lists(where, table)}
        self._senses = {concept: self._sense(concept, id) for concept, id in (senses or {}).items()}
        self._found: dict[str, tuple[int, ...]] = {}

    def columns(self, term: Term) -> tuple[int, ...]:
        """Return which outputs stand for *term*; none for one that cannot be judged.

        Raises ``ConfigError`` where labels of that name mean several things.
        """
        if term not in self._found:
            self._found[term] = self._table.get(term) or self._by_meaning(term)
        return self._found[term]

    def texts(self, term: Term) -> list[str]:
        """Return the texts of the labels that stand for *term*."""
        return [self.labels[column].text for column in self.columns(term)]

    def _by_meaning(self, term: Term) -> tuple[int, ...]:
        if term in self._senses:
            return self._kinds(self._senses[term])
        named = sorted({i for word in term.words for i in self._called(word)})
        meant = {label.sense.id: label.sense for i in named if (label := self.labels[i]).sense is not None}
        own = [sense for sense in meant.values() if _shared([term], sense.words)]
        if len(own) > 1:
            choices = "; ".join(f"{sense.id}, {sense.gloss.partition(';')[0]}" for sense in own)
            raise ConfigError(
                f"{self.where}.senses: labels called {term!r} mean several things ({choices}); say which, as in "
                f"`senses: {{{term}: {own[0].id}}}`"
            )
        if named:
            over = self._likeliest(term, term.words)
            if over and all(dictionary().is_kind(sense, over) for sense in meant.values()):
                meant[over.id] = over
            return tuple(sorted({*named, *(i for sense in meant.values() for i in self._kinds(sense))}))
        likeliest = (sense for word in term.words if (sense := self._likeliest(word, term.words)))
        return self._kinds(sense) if (sense := next(likeliest, None)) else ()

    def _likeliest(self, word: str, words: Sequence[str]) -> Sense | None:
        """Return the sense of *word* that has most of *words*, of those that labels are kinds of."""
        senses = [sense for form in (word, *_singulars(word)) for sense in dictionary().senses(form)]
        senses = [sense for sense in senses if self._kinds(sense)]
        return max(senses, key=lambda sense: _listed(sense, words), default=None)  # the first of equals

    def _called(self, word: str) -> set[int]:
        """Return which labels have *word* as a name, in the singular or the plural."""
        return {i for form in forms(word) for i in self._names.get(form, ())} | self._forms.get(normal(word), set())

    def _kinds(self, sense: Sense) -> tuple[int, ...]:
        return tuple(self._under.get(sense.id, ()))

    @cached_property
    def _names(self) -> dict[str, set[int]]:
        return _index((normal(name), i) for i, label in enumerate(self.labels) for name in label.names)

    @cached_property
    def _forms(self) -> dict[str, set[int]]:
        return _index((form, i) for i, label in enumerate(self.labels) for name in label.names for form in forms(name))

    @cached_property
    def _under(self) -> dict[str, list[int]]:
        """Which labels are kinds of a sense, by its id: of all senses over any label."""
        above: dict[str, set[str]] = {}
        under: dict[str, list[int]] = {}
        for i, label in enumerate(self.labels):
            for id in _above(label.sense, above) if label.sense else ():
                under.setdefault(id, []).append(i)
        return under

    def _columns_named(self, concept: str, names: Sequence[str]) -> tuple[int, ...]:
        known: dict[str, list[int]] = {}
        for i, label in enumerate(self.labels):
            for name in {normal(name) for name in (label.text, label.id, *label.names) if name}:
                known.setdefault(name, []).append(i)
        found: list[int] = []
        for name in names:
            if normal(str(name)) not in known:
                texts = [name for label in self.labels for name in dict.fromkeys((label.text, *label.names))]
                raise ConfigError(
                    f"{self.where}.labels.{concept}: there is no label {name!r} among {len(self.labels):,}"
                    f"{nearest(name, texts)}; expected one such as {', '.join(map(repr, texts[:3]))}"
                )
            found += known[normal(str(name))]
        return tuple(sorted(set(found)))

    def _sense(self, concept: str, id: str) -> Sense:
        try:
            return dictionary().sense(str(id))
        except KeyError:
            senses = ", ".join(sense.id for sense in dictionary().senses(concept)) or "n02121620"
            raise ConfigError(
                f"{self.where}.senses.{concept}: {id!r} is no noun of WordNet 3.0; expected an id such as {senses} "
                "(`lacuna words CONFIG` shows the senses of each concept)"
            ) from None


def _lists(where: str, table: Mapping[str, Sequence[str]] | None) -> list[tuple[str, Sequence[str]]]:
    if table is not None and not isinstance(table, Mapping):
        raise ConfigError(f"{where}.labels: expected a list of labels for each concept")
    for concept, names in (table or {}).items():
        if not isinstance(names, Sequence) or isinstance(names, str) or not names:
            raise ConfigError(f"{where}.labels.{concept}: expected a list of labels")
    return list((table or {}).items())


def _shared(words: Sequence[str], names: Sequence[str]) -> bool:
    """Is one of *words* one of *names*, in the singular or the plural?"""
    return any(normal(word) in forms(name) or normal(name) in forms(word) for word in words for name in names)


def _index(pairs: Iterable[tuple[str, int]]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for key, i in pairs:
        found.setdefault(key, set()).add(i)
    return found


def _above(sense: Sense, known: dict[str, set[str]]) -> set[str]:
    """Return the ids of *sense* and of all that it is a kind of; *known* keeps what was found."""
    if sense.id not in known:
        known[sense.id] = {sense.id}.union(*(_above(parent, known) for parent in dictionary().hypernyms(sense)))
    return known[sense.id]


def _singulars(word: str) -> list[str]:
    """Return the words of the dictionary of which *word* is a regular plural."""
    stems = dict.fromkeys(word[: -len(end)] + put for end, put in _PLURALS if word.endswith(end))
    return [stem for stem in stems if dictionary().senses(stem) and normal(word) in forms(stem)]


def _listed(sense: Sense, words: Sequence[str]) -> int:
    """How many of *words* are called so in *sense* or a kind of it."""
    among = Naming.of_words([*sense.words, *dictionary().kinds(sense)])
    return sum(among.is_word(word) for word in words)
