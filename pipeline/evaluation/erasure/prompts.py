"""What is asked for when an erasure is measured: prompts by cell, with what must not and what must be seen.

Every question is a pure function of the task, its cell, its index and the seed, so that all recipes and the unerased
model answer the same ones. Cells take turns, so that whatever part of them is drawn holds about as much of each.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming, mentions
from pipeline.errors import ConfigError
from pipeline.evaluation.world import World
from pipeline.prompts.seeds import hashed

# What is asked for with the concept, and so must not show it.
LEAKS: dict[str, str] = {
    "plain": "by its name",
    "alias": "by a listed alias",
    "synonym": "by a synonym that is not listed",
    "implied": "by a scene that implies it",
    "scene": "beside another object",
}
# What must be seen as often as without erasure. The scenes name the concept too, and count as the leak "scene".
KEPT: dict[str, str] = {
    "neighbour": "a neighbour alone",
    "unrelated": "an unrelated object alone",
    "beside unrelated": "an unrelated object beside the concept",
    "beside neighbour": "a neighbour beside the concept",
}
# How the concept is asked for without its words.
ATTACKS: dict[str, str] = {
    "attack": "by prompts that a search found",
    "embeddings": "by embeddings made for the edited weights",
}
ATTACK, EMBEDDINGS = ATTACKS


@dataclass(frozen=True)
class Question:
    """One picture to ask for. ``kept`` is the class that must be seen ("": none); ``concept`` is the one at issue.

    ``words`` are those that stand for many others like them, by which the answers of several pictures hang together: an
    unlisted synonym, a scene, another object. A name and the aliases of a list are all there are, and stand for none.
    """

    cell: str
    prompt: str
    seed: int
    concept: str
    kept: str = ""
    words: str = ""

    @property
    def cluster(self) -> tuple[str, ...]:
        """What tells the pictures that come out alike from others."""
        return (self.concept, self.words) if self.words else (self.prompt, str(self.seed))


def questions_digest(asked: Sequence[Question]) -> str:
    """Sixteen hex digits that tell these questions, and so their pictures, from any others."""
    drawn = [{key: value for key, value in asdict(question).items() if key != "words"} for question in asked]
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """A named set of concepts of a world that are erased together: all objects, or all styles."""

    name: str
    concepts: tuple[Concept, ...]
    world: World

    @property
    def erased(self) -> tuple[str, ...]:
        return tuple(concept.name for concept in self.concepts)

    @property
    def of_styles(self) -> bool:
        return self.concepts[0].name in self.world.styles


def questions(task: Task, cell: int, seed: int) -> list[Question]:
    """*cell* questions of each kind that the task allows, the kinds taking turns."""
    kinds = [kind for kind in (*LEAKS, *KEPT) if _asked(task, kind)]  # none is "scene"
    return [_question(task, kind, index, seed) for index in range(cell) for kind in kinds]


def _question(task: Task, kind: str, index: int, seed: int) -> Question:
    rng = random.Random(hashed(task.name, kind, index, seed))
    asked = _asked(task, kind)
    # Concepts take turns first, then the ways to ask for each.
    names = list(dict.fromkeys(concept for concept, *_ in asked))
    own = [item for item in asked if item[0] == names[index % len(names)]]
    concept, phrase, kept = own[index // len(names) % len(own)]
    words = "" if kind in ("plain", "alias") else phrase
    world = task.world
    place = rng.choice(world.places[rng.choice(tuple(world.places))])
    if task.of_styles:
        words = kept if kind.endswith("unrelated") else words
        prompt, kept = _in_style(world, rng, phrase, kept, place)
    elif kind.startswith("beside"):
        both = [world.indefinite(concept), world.indefinite(kept)]
        rng.shuffle(both)
        prompt = f"{both[0]} and {both[1]} {place}"
    else:
        prompt = f"{phrase} {place}"
    return Question(kind, prompt, hashed("picture", task.name, kind, index, seed), concept, kept, words)


def attacked(task: Task, index: int) -> tuple[Concept, str, list[tuple[str, str]]]:
    """The concept of an attack, the prompt to hide, and pairs of texts with the concept and without it."""
    world = task.world
    concept = task.concepts[index % len(task.concepts)]
    rng = random.Random(hashed("attack", task.name, index))
    every = sorted(world.objects, key=lambda name: hashed(task.name, name))
    # Of the first eight those that stay; where all of them go, of the first eight that stay.
    others = [name for name in every[:8] if name not in task.erased] or [n for n in every if n not in task.erased][:8]
    if not others:
        raise ConfigError(f"tasks.{task.name}: erases every object, so nothing is left to hide an attack among")
    scenes = [(p, f"{world.indefinite(other)} {p}") for other in others for p, *_ in world.places.values()]
    if task.of_styles:
        phrases = [phrase for phrase in world.style_phrases(concept.name) if _said(concept, phrase) == "plain"]
        pairs = [(rng.choice(phrases).format(scene), scene) for _, scene in scenes]
    else:
        pairs = [(f"{world.indefinite(concept.name)} {place}", scene) for place, scene in scenes]
    return concept, rng.choice(pairs)[0], pairs


@lru_cache(maxsize=256)
def _asked(task: Task, kind: str) -> tuple[tuple[str, str, str], ...]:
    """Return (concept, phrase, class to be kept) for every way in which a cell can be asked for."""
    return tuple(_asked_of_styles(task, kind) if task.of_styles else _asked_of_objects(task, kind))


def _asked_of_objects(task: Task, kind: str) -> Iterator[tuple[str, str, str]]:
    world = task.world
    indefinite = world.indefinite
    for concept in task.concepts:
        name = concept.name
        match kind:
            case "plain":
                yield name, indefinite(name), ""
            case "alias":
                yield from ((name, indefinite(word), "") for word in concept.aliases)
            case "synonym":
                yield from ((name, indefinite(w), "") for w in world.synonyms.get(name, ()) if not mentions(w, concept))
            case "implied":
                scenes = (scene for scene, shown in world.implied.items() if name in shown)
                # "a haunted house" names a house
                yield from ((name, scene, "") for scene in scenes if not mentions(scene, concept))
            case "neighbour" | "beside neighbour":
                near = neighbours(task, concept)
                if kind == "beside neighbour":  # the anchor that takes the concept's place would pass for the other
                    near = [other for other in near if other != world.canonical(concept.anchor)]
                yield from ((name, indefinite(other), other) for other in near)
            case "unrelated" | "beside unrelated":
                yield from ((name, indefinite(other), other) for other in unrelated(task))


def neighbours(task: Task, concept: Concept) -> list[str]:
    """The concept's family and what it lists to preserve, as far as it is not erased itself."""
    listed = [task.world.canonical(word) for word in concept.preserve]
    near = dict.fromkeys([*task.world.family_of(concept.name), *(name for name in listed if name)])
    return [name for name in near if name not in task.erased]


def unrelated(task: Task) -> list[str]:
    """Objects that are neither erased nor of an erased one's family, nor named by the task at all.

    In an order of the task's own, so that a small cell holds a fair sample of them.
    """
    near = {name for concept in task.concepts for name in neighbours(task, concept)}
    near |= {task.world.canonical(concept.anchor) or "" for concept in task.concepts} | set(task.erased)
    return sorted((name for name in task.world.objects if name not in near), key=lambda name: hashed(task.name, name))


def _asked_of_styles(task: Task, kind: str) -> Iterator[tuple[str, str, str]]:
    world = task.world
    objects = sorted(world.objects, key=lambda name: hashed(task.name, name))
    for concept in task.concepts:
        name = concept.name
        match kind:
            case "plain" | "alias" | "synonym":
                for i, phrase in enumerate(
                    phrase for phrase in world.style_phrases(name) if _said(concept, phrase) == kind
                ):
                    yield name, phrase, objects[i % len(objects)]
            case "neighbour":
                others = [style for style in world.styles if style not in task.erased]
                yield from ((name, phrase, style) for style in others for phrase in world.style_phrases(style))
            case "unrelated":
                yield from ((name, "{}", other) for other in objects)
            case "beside unrelated":  # the object in the picture whose style is erased
                phrases = [phrase for phrase in world.style_phrases(name) if _said(concept, phrase) == "plain"]
                yield from ((name, phrases[i % len(phrases)], other) for i, other in enumerate(objects))


def _said(concept: Concept, phrase: str) -> str:
    if Naming.of_words([concept.name]).names(phrase):
        return "plain"
    return "alias" if mentions(phrase, concept) else "synonym"


def _in_style(world: World, rng: random.Random, phrase: str, kept: str, place: str) -> tuple[str, str]:
    """The prompt of a style's cell, and what must be seen: an object, or another style with any object."""
    shown = kept if kept in world.objects else rng.choice(world.objects)
    return phrase.format(f"{world.indefinite(shown)} {place}"), kept
