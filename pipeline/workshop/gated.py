"""What the text gates of a recipe make of single words, by the model's own encoder. Nothing is drawn.

``Gates.look`` asks for each concept the everyday words that come nearest to it, the dictionary's kinds, synonyms and
siblings, and what the list preserves, for whichever concept; each alone, as a gate asks the words of a prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from pipeline.concepts.concept import Concept
from pipeline.concepts.dictionary import Sense, dictionary
from pipeline.concepts.kin import Kin, Relation, senses_of
from pipeline.concepts.mentions import Naming
from pipeline.concepts.normal import normal
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config, Device
from pipeline.erasure.gate import calibration
from pipeline.erasure.gate.text import TextGate
from pipeline.erasure.recipe import compile_recipe, recipe_steps
from pipeline.erasure.steps import Step
from pipeline.erasure.tokens import check_concepts
from pipeline.errors import check_given, named_in_errors
from pipeline.models.family import Family
from pipeline.models.find import find_model
from pipeline.models.load import load_model, load_text
from pipeline.session import resolve_device
from pipeline.statistics import rounded_down
from pipeline.terminal import live
from pipeline.workshop.choices import IMPLIES, LEAVE, MEANS

PRESERVED = "preserved"
RULE = (
    f"acts on words of a score from {calibration.OPENS:.2f} on, which mean the concept from {calibration.MEANS:.2f} on "
    "and imply it below"
)
LISTED = "acts on words that the list has, and that pictures proved (unlisted: false)"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A word as a gate reads it alone.

    ``score`` is the gate's, 0..1, rounded down, so that none seems to reach a threshold: it acts from ``OPENS`` on, and
    from ``MEANS`` on a word means the concept (see ``gate.calibration``). ``became`` is "means", "implies" or "leave",
    which a word is also where it means another concept, to which it comes nearer: ``instead``, else empty. ``known`` is
    what the word is to the concept by the dictionary (``Relation``'s values, of its most frequent sense; a kind of an
    alias is no sibling), or "preserved" where the list says so of whichever concept; ``sense`` and ``gloss`` are those
    of ``sense_beside``, or empty.
    """

    word: str
    score: float
    became: str
    instead: str
    known: str
    sense: str
    gloss: str

    @property
    def told(self) -> str:
        """The score in two digits, rounded down likewise."""
        return rounded_down(self.score)

    @property
    def too_near(self) -> bool:
        """Whether the gate acts on what dictionary or list have as something else."""
        return self.became != LEAVE and self.known in (Relation.sibling.value, PRESERVED)


class Gates:
    """The text gates of the recipe of *config*, whose model *family* drives, as ``text_of`` loads it. Raises
    ``ConfigError`` for concepts that no method can work with."""

    def __init__(self, config: Config, family: Family):
        self._family = family  # a gate's encoder does not hold it
        self._steps = _gated(config, family)
        for step in self._steps:
            check_concepts(family.streams, step.concepts, step.label)
        self._gates: list[TextGate] = []
        for step in self._steps:
            gate = step.text_gate(family)
            with named_in_errors(step.where):
                check_given("text_gate", gate, TextGate | None, "a TextGate, or None")
            self._gates += [] if gate is None else [gate]
        concepts = concepts_of(config.erasure)
        kept = tuple(dict.fromkeys(word for c in concepts for word in (*c.preserve, c.anchor) if word))
        self._concepts = {concept.name: _Beside(concept, kept) for concept in concepts}
        self._naming = Naming(concepts)

    @property
    def rule(self) -> str:
        """What the recipe acts on."""
        options = [step.options for step in self._steps]
        if any(getattr(own, "always_on", False) for own in options):
            return "acts on every prompt (always_on)"
        also = []
        if any(getattr(own, "context", False) for own in options):
            also.append("prompts that come near as a whole (context)")
        if any(getattr(own, "attention", 1.0) < 1 for own in options):
            also.append("pictures that hear of a concept (attention)")
        words = RULE if any(own.unlisted for own in options) else LISTED
        return f"{words}; and on {' and '.join(also)}, of which nothing is told here" if also else words

    def look(self) -> dict[str, list[Scored]]:
        """Return, by the name of each concept that a gate has, the words beside it that no concept lists and that are
        neither proved nor said to imply it, the highest score first."""
        near = {name: list(self._near(own)) for name, own in self._concepts.items() if any(self._of(own.concept))}
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
            elif score >= calibration.OPENS:
                instead = next((hit.concept.name for hit in hits), "")
        sense = own.sense(word)
        return Scored(
            word=word,
            score=float(rounded_down(score, 3)),
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
        for word in (*(w for gate, i in self._of(own.concept) for w in gate.candidates(i)), *own.words()):
            key = normal(word)
            if key not in told and not self._naming.names(word) and not own.tells(word):
                told.add(key)
                yield word


class _Beside:
    """What list and dictionary know beside *concept*; *kept* is what the list preserves, and puts in place."""

    def __init__(self, concept: Concept, kept: Sequence[str]):
        self.concept = concept
        self._kin = Kin(concept)
        self._aliases = [Kin(Concept(name=alias)) for alias in concept.aliases]
        self._senses = dictionary().senses(concept.name)
        self._kept = kept
        self._preserved = Naming.of_words(kept)
        self._told = Naming.of_words((*concept.proven, *concept.implied))

    def tells(self, word: str) -> bool:
        """Whether it is said of *word* that it means or implies the concept, beside the listed ones."""
        return self._told.is_word(word)

    def relation(self, word: str) -> str:
        if self._preserved.is_word(word):
            return PRESERVED
        found = self._kin.relation(normal(word))
        if found is Relation.sibling and any(kin.relation(normal(word)) is Relation.kind for kin in self._aliases):
            found = Relation.kind  # a scattergun, of a rifle that is listed with its shotgun
        return found.value

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
    own = senses_of(word)
    kinds = (sense for sense in own if any(book.is_kind(sense, of) for of in senses))
    return next(kinds, own[0] if own else None)


def gates_of(config: Config) -> Gates | None:
    """Return the gates of the recipe of *config*; None, and nothing is loaded, where no method of it has one."""
    if not _gated(config, find_model(config.model).family()):
        return None
    return Gates(config, text_of(config))


def text_of(config: Config) -> Family:
    """Load what of the model of *config* a gate reads words by (``load_text``), on a CPU where the GPU that is to draw
    is not here.

    Where the recipe may edit a text encoder the whole model is loaded, and its edits are applied as a run does. Raises
    ``ConfigError`` and ``SelfCheckError`` as that does.
    """
    device = torch.device(resolve_device(Device.cpu if config.cluster.device is Device.cpu else Device.auto))
    steps = recipe_steps(config, find_model(config.model).family())
    if not any(step.edits_text for step in steps):
        return load_text(config.model, device)
    model = load_model(config.model, device)
    compile_recipe(config, model)
    return model.family


def _gated(config: Config, family: Family | type[Family]) -> list[Step]:
    """Return the steps of the recipe that read the words of a prompt: all these have that option."""
    return [step for step in recipe_steps(config, family) if hasattr(step.options, "false_alarms")]
