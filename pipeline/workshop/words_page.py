"""The page of ``lacuna words --page``: what each word near a concept scores, means in the dictionary and draws, and
what became of it; and, where it is served, for a person to move words and save the list."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.concepts.concept import Concept
from pipeline.concepts.dictionary import Sense, dictionary
from pipeline.concepts.mentions import Naming
from pipeline.concepts.normal import normal
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import ConceptConfig, Config
from pipeline.errors import ConfigError
from pipeline.evaluation.words.cache import SweptShard, WordCache
from pipeline.evaluation.words.candidates import encoded, nearness
from pipeline.evaluation.words.judge import read_picture
from pipeline.evaluation.words.questions import without_article
from pipeline.evaluation.words.selection import vocabulary
from pipeline.evaluation.words.settle import drawn_words, extended
from pipeline.evaluation.words.tally import Row
from pipeline.evaluation.words.verdict import ROUNDS, RULES, Judged
from pipeline.files import write_whole
from pipeline.pages.page import render
from pipeline.workshop.choices import IMPLIES, LEAVE, MEANS, chosen
from pipeline.workshop.gated import Gates, sense_beside, text_of
from pipeline.workshop.lists import list_yaml

NEAREST = 60  # words of the vocabulary shown of each concept
KINDS = 60  # of the dictionary, of each concept
PICTURES = 4  # of each word that means or implies a concept, or may


@dataclass(kw_only=True)
class Shown:
    """A word beside a concept: ``score`` is its nearness for the text encoder, ``became`` what is known of it and
    ``choice`` where it stands now ("": nowhere); a ``fixed`` one is not to be moved. ``gated`` tells of a word that the
    list does not settle and on which the recipe's gate acts."""

    key: str  # no other's on the page
    word: str
    became: str
    choice: str = ""
    fixed: bool = False
    score: float = 0.0
    gated: str = ""
    sense: Sense | None = None
    pictures: list[bytes] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether something is done about it, or is not to be done."""
        return bool(self.choice or self.fixed or self.gated)


@dataclass(frozen=True, kw_only=True)
class ConceptShown:
    """A concept's words; ``said`` tells of its own name."""

    name: str
    said: str
    pictures: list[bytes]
    acted_on: list[Shown]
    others: list[Shown]

    @property
    def movable(self) -> list[str]:
        return [shown.word for shown in (*self.acted_on, *self.others) if not shown.fixed]


class WordsPage:
    """All that the page shows of the list of *config*, which is settled. Nothing is drawn for it.

    Raises ``ConfigError`` where nothing is listed, and as reading the vocabulary and loading the model do.
    """

    def __init__(self, config: Config):
        if not config.erasure.concepts:
            raise ConfigError("erasure.concepts: is empty; expected the concepts whose words are to be shown")
        self.config = config
        self.concepts = [_Words(i, concept) for i, concept in enumerate(concepts_of(config.erasure))]
        self._seen = _Seen(config)
        words = vocabulary(config)
        for own, after in zip(self.concepts, self._seen.extended, strict=True):
            own.listed(after)
        self._score(words)
        self.shown = [self._concept(i, own) for i, own in enumerate(self.concepts)]

    def html(self, *, live: bool) -> str:
        """Return the page; a *live* one lets words be moved and saved."""
        return render(
            "words.html",
            title="Words",
            live=live,
            concepts=self.shown,
            rules=RULES,
            drawn=self._seen.number,
            model=self.config.model.path,
            vocabulary=Path(self.config.words.vocabulary).name,
        )

    def save(self, path: Path, choices: Any) -> str:
        """Write the list as *choices* has it to *path*, and return a line on it. Raises ``ConfigError``."""
        shown = {concept.name: concept.movable for concept in self.shown}
        concepts = chosen(self.config.erasure.concepts, shown, choices)
        write_whole(path, list_yaml(concepts).encode())
        counts = (sum(len(getattr(concept, part)) for concept in concepts) for part in ("aliases", "implied", "ignore"))
        return "saved to {}: {} words mean a concept, {} imply one, {} are left alone".format(path, *counts)

    def _score(self, words: Sequence[str]) -> None:
        """Have the model's text encoder say how near words come, add what the gates of the recipe act on and the
        nearest of *words* to each concept, and ask the gates what they make of those that nothing was said of."""
        erasure = replace(self.config.erasure, concepts=list(self._seen.extended))  # as a run has them
        config = replace(self.config, erasure=erasure)
        family = text_of(config)
        gates = Gates(config, family)
        looked = gates.look()
        basis = encoded(family, words)
        listed = [encoded(family, own.concept.words) for own in self.concepts]
        near = nearness(basis, listed, basis)
        for c, own in enumerate(self.concepts):
            best = near[:, c].argsort(descending=True, stable=True).tolist()[:NEAREST]
            acted_on = [found.word for found in looked.get(own.concept.name, ()) if found.became != LEAVE]
            own.candidates([*acted_on, *(words[i] for i in best)])
        for c, own in enumerate(self.concepts):
            scores = nearness(encoded(family, [shown.word for shown in own.rows]), listed, basis)[:, c].tolist()
            for shown, score in zip(own.rows, scores, strict=True):
                shown.score = score
                if not shown.choice and (found := gates.scored(own.concept.name, shown.word)).became != LEAVE:
                    too_near = ", too near" if found.too_near else ""
                    shown.gated = f"the gate acts on it ({found.became}, {found.told}{too_near})"

    def _concept(self, index: int, own: "_Words") -> ConceptShown:
        for shown in own.rows:
            judged = self._seen.judged(shown.word, index)
            if shown.gated:
                shown.became += f"; {shown.gated}"
            if judged is not None and judged.pictures:
                interval = f"{100 * judged.low:.0f} to {100 * judged.high:.0f} %"
                shown.became += f"; {judged.hits} of {judged.pictures} pictures show it ({interval})"
            elif not shown.fixed:
                shown.became += "; not drawn"
            if shown.choice in (MEANS, IMPLIES) or (judged is not None and judged.hits):
                shown.pictures = self._seen.pictures(shown.word)
        acted_on = [shown for shown in own.rows if shown.settled]
        others = sorted((shown for shown in own.rows if not shown.settled), key=lambda s: -s.score)
        return ConceptShown(
            name=own.concept.name,
            said=self._seen.said(own.concept.name, index),
            pictures=self._seen.pictures(own.concept.name),
            acted_on=acted_on,
            others=others,
        )


class _Words:
    """The words to show of one concept, each once."""

    def __init__(self, number: int, concept: Concept):
        self.number, self.concept = number, concept
        self.rows: list[Shown] = []
        self._known = {normal(concept.name)}
        self._senses = dictionary().senses(concept.name)
        self._naming = Naming([concept])

    def listed(self, found: ConceptConfig) -> None:
        """Show what the list says, *found* being the concept with what pictures proved."""
        for word in self.concept.aliases:
            self._add(word, "listed", MEANS)
        for word in found.proven:
            self._add(word, "proved by its pictures", MEANS)
        for word in found.implied:
            self._add(word, "implies it, by its pictures", IMPLIES)
        for word in self.concept.ignore:
            self._add(word, "ignored", LEAVE)
        for word in self.concept.keep:
            self._add(word, "an exception", fixed=True)
        for word in self.concept.preserve:
            self._add(word, "to be preserved", fixed=True)
        book = dictionary()
        kinds = [word for sense in self._senses for word in (*sense.words, *book.kinds(sense))]
        for word in kinds[:KINDS]:
            self._add(word, "in the dictionary")

    def candidates(self, words: Sequence[str]) -> None:
        """Show *words* too, where the list does not find them already."""
        for word in words:
            self._add(without_article(word), "near")

    def _add(self, word: str, became: str, choice: str = "", fixed: bool = False) -> None:
        key = normal(word)
        if key in self._known or not (choice or fixed or not self._naming.names(word)):
            return
        self._known.add(key)
        name = f"{self.number}-{len(self.rows)}"
        sense = sense_beside(word, self._senses)
        self.rows.append(Shown(key=name, word=word, became=became, choice=choice, fixed=fixed, sense=sense))


class _Seen:
    """What pictures of words showed; nothing where none were drawn."""

    def __init__(self, config: Config):
        self.extended: Sequence[ConceptConfig] = config.erasure.concepts
        self.number = 0
        self._rows: dict[str, list[Judged]] = {}
        self._pictures: dict[str, list[tuple[SweptShard, Row]]] = {}
        self._provable: list[bool] = []
        self._unjudged: tuple[str, ...] = ()
        cache = drawn_words(config)
        if cache is None:
            return
        tally = cache.tally()
        if not set(cache.judged_names) <= set(tally.words):
            return
        table = tally.table(tally.words, ROUNDS)
        self._unjudged = cache.auditor.unjudged
        self.extended = extended(config, tally.words, table)
        self.number = len(tally.words)
        self._provable = table.provable.tolist()
        for word, row in zip(tally.words, table.judge(), strict=True):
            self._rows.setdefault(normal(without_article(word)), row)
        self._pictures = _drawn(cache)

    def judged(self, word: str, concept: int) -> Judged | None:
        row = self._rows.get(normal(word))
        return None if row is None else row[concept]

    def pictures(self, word: str) -> list[bytes]:
        """Return the first pictures of *word*, encoded."""
        return [read_picture(part, row) for part, row in self._pictures.get(normal(word), [])[:PICTURES]]

    def said(self, name: str, concept: int) -> str:
        judged = self.judged(name, concept)
        if name in self._unjudged:
            return "No detector looks for it."
        if judged is None:
            return "Nothing is drawn of its own name yet."
        share = f"Its own name shows it in {judged.hits} of {judged.pictures} pictures"
        if not self._provable[concept]:
            return f"{share}: not provable with this model and detector."
        return f"{share}."


def _drawn(cache: WordCache) -> dict[str, list[tuple[SweptShard, Row]]]:
    """Return where the pictures of each word lie, by its normal form, in the order of their numbers."""
    found: dict[str, dict[int, tuple[SweptShard, Row]]] = {}
    for part in cache.parts():
        for row in part.rows:
            if row.offset is not None:
                word = normal(without_article(row.question.word))
                found.setdefault(word, {}).setdefault(row.question.number, (part, row))
    return {word: [of[number] for number in sorted(of)] for word, of in found.items()}
