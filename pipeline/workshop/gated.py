"""What the text gates of a recipe make of single words, by the model's own encoder. Nothing is drawn.

``Gates.look`` asks for each concept the everyday words that come nearest to it, the dictionary's kinds, synonyms and
siblings, and what the list preserves; each alone, as a gate asks the words of a prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from pipeline.concepts.concept import Concept
from pipeline.concepts.dictionary import Sense, dictionary
from pipeline.concepts.kin import Kin, Relation
from pipeline.concepts.mentions import Naming
from pipeline.concepts.normal import normal
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config
from pipeline.erasure.gate.calibration import OPENS
from pipeline.erasure.gate.text import TextGate
from pipeline.erasure.recipe import active_methods, recipe_steps
from pipeline.models.find import find_model
from pipeline.models.load import Model, load_model
from pipeline.session import resolve_device
from pipeline.terminal import live
from pipeline.workshop.choices import IMPLIES, LEAVE, MEANS

PRESERVED = "preserved"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A word as a gate reads it alone.

    ``score`` is the gate's, 0..1: it acts from ``OPENS`` on, and from ``MEANS`` on a word means the concept (see
    ``gate.calibration``). ``became`` is "means", "implies" or "leave", which a word is also where it means another
    concept, to which it comes nearer: ``instead``, else empty. ``known`` is what the word is to the concept by the
    dictionary (``Relation``'s values, of its most frequent sense), or "preserved" where the list says so; ``sense`` and
    ``gloss`` are those of ``sense_beside``, or empty.
    """

    word: str
    score: float
    became: str
    instead: str
    known: str
    sense: str
    gloss: str

    @property
    def too_near(self) -> bool:
        """Whether the gate acts on what dictionary or list have as something else."""
        return self.became != LEAVE and self.known in (Relation.sibling.value, PRESERVED)


class Gates:
    """The text gates of the recipe of *config*, on *model*. Raises ``ConfigError`` as building its methods does."""

    def __init__(self, config: Config, model: Model):
        self._model = model  # a gate's encoder does not hold it
        gates = (getattr(method, "gate", None) for method in active_methods(config, model))
        self._gates = [gate for gate in gates if isinstance(gate, TextGate)]
        self._concepts = {concept.name: _Beside(concept) for concept in concepts_of(config.erasure)}
        self._naming = Naming(concepts_of(config.erasure))

    def look(self) -> dict[str, list[Scored]]:
        """Return, by the concept's name, the words beside it that no concept lists, the highest score first."""
        near = {name: list(self._near(own)) for name, own in self._concepts.items()}
        found: dict[str, list[Scored]] = {}
        with tqdm(total=sum(map(len, near.values())), desc="words", disable=not live(), leave=False) as bar:
            for name, words in near.items():
                found[name] = []
                for word in words:
                    found[name].append(self.scored(name, word))
                    bar.update()
                found[name].sort(key=lambda scored: -scored.score)
        return found

    def scored(self, name: str, word: str) -> Scored:
        """Return what the gate of the concept *name* makes of *word*; where no gate has it, the word is left."""
        own, score, became, instead = self._concepts[name], 0.0, LEAVE, ""
        for gate, number in self._of(own.concept):
            score, hits = gate.scores(word)[number], gate.hits(word)
            if of_it := [hit for hit in hits if hit.concept == own.concept]:
                became = MEANS if any(hit.meant for hit in of_it) else IMPLIES
            elif score >= OPENS:
                instead = next((hit.concept.name for hit in hits), "")
        sense = own.sense(word)
        return Scored(
            word=word,
            score=round(score, 3),
            became=became,
            instead=instead,
            known=own.relation(word),
            sense=sense.id if sense else "",
            gloss=sense.gloss if sense else "",
        )

    def _of(self, concept: Concept) -> Iterator[tuple[TextGate, int]]:
        for gate in self._gates:
            if concept in gate.concepts:
                yield gate, gate.concepts.index(concept)

    def _near(self, own: "_Beside") -> Iterator[str]:
        """Yield the words that are asked for a concept, each once."""
        told = {""}
        for word in (*(w for gate, i in self._of(own.concept) for w in gate.near(i)), *own.words()):
            key = normal(word)
            if key not in told and not self._naming.names(word):
                told.add(key)
                yield word


class _Beside:
    """What list and dictionary know beside *concept*."""

    def __init__(self, concept: Concept):
        self.concept = concept
        self._kin = Kin(concept)
        self._senses = dictionary().senses(concept.name)
        self._kept = [word for word in (*concept.preserve, concept.anchor) if word]
        self._preserved = Naming.of_words(self._kept)

    def relation(self, word: str) -> str:
        return PRESERVED if self._preserved.is_word(word) else self._kin.relation(normal(word)).value

    def sense(self, word: str) -> Sense | None:
        return sense_beside(word, self._senses)

    def words(self) -> Iterator[str]:
        yield from self._kept
        book = dictionary()
        for sense in self._senses:
            yield from (*sense.words, *book.kinds(sense), *book.siblings(sense))


def sense_beside(word: str, senses: Sequence[Sense]) -> Sense | None:
    """Return what *word* means: a kind of one of *senses*, a concept's, or else what it means most often."""
    book = dictionary()
    own = book.senses(word)
    kinds = (sense for sense in own if any(book.is_kind(sense, of) for of in senses))
    return next(kinds, own[0] if own else None)


def gates_of(config: Config) -> Gates | None:
    """Load the model of *config* for its gates; None, and nothing is loaded, where no method of its recipe has one."""
    steps = recipe_steps(config, find_model(config.model).family())
    if not any(hasattr(step.options, "false_alarms") for step in steps):  # as all have that read the words of a prompt
        return None
    return Gates(config, load_model(config.model, torch.device(resolve_device(config.cluster.device))))
