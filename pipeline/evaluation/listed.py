"""A world that a config lists: what a model of the user's own draws, told in words, and judged by detectors.

Its objects are what the tasks erase and preserve, and what ``families`` add; of these the pictures are judged by the
detectors of an audit, which need to have audited no run that is evaluated. Where they give boxes, an object lies in the
cells of 8x8 pixels that its box touches.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.concepts.concept import Concept
from pipeline.concepts.normal import normal
from pipeline.concepts.term import Kind
from pipeline.config.extras import check_extras_of_detectors
from pipeline.config.problem import Problem, show, under
from pipeline.config.sections.audit import DetectorConfig, Role
from pipeline.errors import ConfigError, nearest
from pipeline.evaluation.words.questions import with_article
from pipeline.evaluation.world import CELL, Judge, World
from pipeline.registry import DETECTORS, check_name

if TYPE_CHECKING:
    from torch import Tensor


FIELD = "{}"


@dataclass(kw_only=True)
class ListedConfig:
    """The words of a world, and who judges its pictures: each class is judged by the first detector that knows it."""

    judges: list[DetectorConfig] = field(default_factory=list)
    size: list[int] = field(default_factory=lambda: [512, 512])  # of its pictures: width, height
    # Objects beside those of the tasks; those of a family are each other's neighbours.
    families: dict[str, list[str]] = field(default_factory=dict)
    synonyms: dict[str, list[str]] = field(default_factory=dict)  # words for an object that no task lists
    implied: dict[str, list[str]] = field(default_factory=dict)  # scenes, and the objects that they show unsaid
    # What stands behind an object in a prompt.
    places: list[str] = field(default_factory=lambda: ["outdoors", "in a room", "on a street", "by the sea"])
    styles: dict[str, list[str]] = field(default_factory=dict)  # ways to say each, with {} where the content goes


class Listed(World):
    """The world of a ``ListedConfig`` and of the *concepts* of all tasks. Raises ``Problem``, under ``listed``."""

    def __init__(self, listed: ListedConfig, concepts: Sequence[Concept]):
        _check(listed)
        self.listed = listed
        width, height = listed.size
        self.size = width, height
        self.style_prefixes = dict.fromkeys(listed.styles, ())
        self.style_suffixes = dict.fromkeys(listed.styles, ())
        self.synonyms = {name: tuple(words) for name, words in listed.synonyms.items()}
        self.implied = {scene: tuple(names) for scene, names in listed.implied.items()}
        self.places = {place: (place,) for place in listed.places}
        self.unknown = ("thing",)
        self._concepts = {concept.name: concept for concept in concepts}
        self.families = {name: tuple(members) for name, members in self._families(concepts)}
        self._check_names()
        words = [(name, name) for name in self.objects]
        words += [
            (word, concept.name) for concept in concepts for word in concept.aliases if not self._is_style(concept)
        ]
        words += [(word, name) for name, others in self.synonyms.items() for word in others]
        self._canonical: dict[str, str] = {}
        for word, name in words:
            self._canonical.setdefault(normal(word), name)
        self._check_synonyms()
        self._judges: Judges | None = None

    def _families(self, concepts: Sequence[Concept]) -> Iterator[tuple[str, list[str]]]:
        """Yield those of the config, and a family for each other object that a task names."""
        listed = self.listed.families
        yield from listed.items()
        known = {normal(name) for members in listed.values() for name in members}
        for concept in concepts:
            for name in () if self._is_style(concept) else (concept.name, *concept.preserve):
                if normal(name) not in known and not any(normal(name) in map(normal, c.aliases) for c in concepts):
                    known.add(normal(name))
                    yield f"{name} of the tasks", [name]

    def _is_style(self, concept: Concept) -> bool:
        return concept.name in self.listed.styles

    def _check_names(self) -> None:
        """Raise ``Problem`` where what is said of an object is said of none."""
        for key, said in (("synonyms", self.listed.synonyms), ("implied", self.listed.implied)):
            for word, others in said.items():
                for name in [word] if key == "synonyms" else others:
                    if name not in self.objects:
                        here = under(f"listed.{key}", word)
                        raise Problem(here, f"{name!r} is no object of this world{nearest(name, self.objects)}")
        for concept in self._concepts.values():
            if concept.everywhere and not self._is_style(concept):
                raise Problem(
                    "listed.styles",
                    f"has no way to say the style {concept.name!r}; expected texts with {FIELD} for the content",
                )

    def _check_synonyms(self) -> None:
        """Raise ``Problem`` for a word that stands for another object too: its pictures would be judged as of both."""
        for name, words in self.synonyms.items():
            for word in words:
                if (other := self.canonical(word)) != name:
                    raise Problem(
                        under("listed.synonyms", name), f"{word!r} is a word for {other!r}; expected words for it alone"
                    )

    @property
    def styles(self) -> tuple[str, ...]:
        return tuple(self.listed.styles)

    @property
    def judged_by(self) -> str:
        return " and ".join(judge.detector for judge in self.listed.judges)

    def style_phrases(self, style: str) -> list[str]:
        return list(self.listed.styles[style])

    def canonical(self, word: str) -> str | None:
        return self._canonical.get(normal(word))

    def indefinite(self, word: str) -> str:
        return with_article(word)

    def judge(self, device: str) -> "Judge":
        """Raises ``ConfigError`` where a class has no judge, or one of them cannot judge pictures of this size."""
        self._judges = Judges(self, device)
        return self._judges

    def judge_digest(self) -> str:
        """Of who judged last, or judges on the CPU: weights, options but where an endpoint is, code and thresholds."""
        judges = self._judges or Judges(self, "cpu")
        return hashlib.sha256(json.dumps(judges.facts(), sort_keys=True).encode()).hexdigest()[:16]

    def asked(self, name: str) -> Concept:
        """Return a class as its judge is asked about it: by all its words."""
        kind = Kind.style if name in self.styles else Kind.object
        own = self._concepts.get(name, Concept(name=name, kind=kind))
        words = (*own.aliases, *self.synonyms.get(name, ()))
        return Concept(name=name, aliases=words, kind=own.kind, references=own.references)


class Judges:
    """The detectors of a world as its judge."""

    def __init__(self, world: Listed, device: str):
        from pipeline.audit.eye import Eye, labels

        self.world = world
        left = {name: world.asked(name) for name in world.classes}
        self.eyes: list[Eye] = []
        configs = world.listed.judges
        check_extras_of_detectors(configs, "listed.judges")
        names = labels(config.detector for config in configs)
        for i, (config, name) in enumerate(zip(configs, names, strict=True)):
            eye = Eye.load(config, list(left.values()), device, name, f"listed.judges[{i}]")
            if not eye.concepts:
                raise ConfigError(f"{eye.where}: {name} knows no class that is left to judge; leave it out")
            if not eye.detector.takes(*world.size):
                raise ConfigError(f"listed.size: {name} cannot judge pictures of {show(list(world.size))} pixels")
            for concept in eye.concepts:
                del left[concept.name]
            self.eyes.append(eye)
        if left:
            raise ConfigError(f"listed.judges: {' and '.join(names)} cannot judge {', '.join(left)}; add one that can")
        self.thresholds: Mapping[str, float] = {
            concept.name: eye.thresholds[concept.name] for eye in self.eyes for concept in eye.concepts
        }

    def see(self, images: "Tensor") -> "tuple[Tensor, Tensor]":
        """See ``Judge.see``. An object whose judge gives it no box is nowhere."""
        import torch

        pixels = images.cpu().numpy()
        count, height, width = pixels.shape[:3]
        classes, objects = self.world.classes, self.world.objects
        scores = np.zeros((count, len(classes)), np.float32)
        places = np.zeros((count, len(objects), height // CELL, width // CELL), np.float32)
        for eye in self.eyes:
            sight = eye.see(pixels)
            columns = [classes.index(concept.name) for concept in eye.concepts]
            scores[:, columns] = sight.scores
            if sight.boxes is not None:
                inside = [i for i, column in enumerate(columns) if column < len(objects)]
                places[:, [columns[i] for i in inside]] = cells(sight.boxes[:, inside], height, width)
        return torch.from_numpy(scores), torch.from_numpy(places)

    def facts(self) -> list[object]:
        """What they are, for a digest."""
        from pipeline.audit.calibration import fingerprint

        found: list[object] = []
        for eye, config in zip(self.eyes, self.world.listed.judges, strict=True):
            options = {key: value for key, value in config.options.items() if key != "endpoint"}
            found.append([fingerprint(eye.detector, config.detector, options), dict(eye.thresholds)])
        return found


def cells(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return which cells of 8x8 pixels each of *boxes* touches, bool ``(B, T, height // 8, width // 8)``; *boxes* are
    ``(B, T, 4)`` as x0, y0, x1, y1 in pixels, NaN where there is none, which touches nothing."""
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)[..., None]  # (B, T, 1) each
    left, top = CELL * np.arange(width // CELL), CELL * np.arange(height // CELL)
    across = (x0 < left + CELL) & (x1 > left)
    down = (y0 < top + CELL) & (y1 > top)
    found: np.ndarray = down[..., :, None] & across[..., None, :]
    return found


def _check(listed: ListedConfig) -> None:
    """Raise ``Problem`` for what cannot be, told without loading a detector."""
    if not listed.judges:
        raise Problem(
            "listed.judges", "is empty; expected detectors, such as [{detector: open_vocabulary, options: ...}]"
        )
    for i, judge in enumerate(listed.judges):
        try:
            check_name("detector", judge.detector, DETECTORS)
        except ConfigError as error:
            raise Problem(f"listed.judges[{i}].detector", str(error)) from None
        if judge.role is not Role.judge:
            raise Problem(f"listed.judges[{i}].role", f"is {judge.role}; expected a judge")
    if len(listed.size) != 2 or any(side < CELL or side % CELL for side in listed.size):
        raise Problem("listed.size", f"is {show(listed.size)}; expected width and height, multiples of {CELL}")
    _check_texts("places", listed.places)
    once: dict[str, str] = {}
    for family, members in listed.families.items():
        here = under("listed.families", family)
        if not members or not all(name.strip() for name in members):
            raise Problem(here, f"is {show(members)}; expected names of objects, such as [cat, tiger]")
        for name in members:
            if normal(name) in once:
                raise Problem(here, f"{name!r} is in {once[normal(name)]!r} already; expected every object once")
            once[normal(name)] = family
    for style, phrases in listed.styles.items():
        here = under("listed.styles", style)
        if not phrases:
            raise Problem(here, f"is empty; expected ways to say it, such as 'a {style} of {FIELD}'")
        for phrase in phrases:
            if phrase.count(FIELD) != 1:
                raise Problem(here, f"{phrase!r}: expected {FIELD} once, in the place of the content")


def _check_texts(key: str, texts: Iterable[str]) -> None:
    found = list(texts)
    if not found or not all(text.strip() for text in found):
        raise Problem(f"listed.{key}", f"is {show(found)}; expected texts, such as ['on a beach']")
