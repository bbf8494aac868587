"""The world in which recipes are evaluated: its words, and who judges its pictures.

An evaluation asks for what a world holds and must know what then has to be seen, so a world is named by its objects and
styles, by what belongs together, and by what implies what. Imports torch only where a judge is loaded.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import ConfigError
from pipeline.registry import WORLDS, load_class

if TYPE_CHECKING:
    from torch import Tensor

CELL = 8  # pixels of a cell of a judge's maps


class Judge(Protocol):
    """Sees what a picture shows. It judges evaluations and audits no run, so that no method was tuned to its eye."""

    @property
    def thresholds(self) -> Mapping[str, float]:
        """From which probability on each class counts as seen."""

    def see(self, images: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return probabilities ``(B, classes)``, in the order of ``World.classes``, and, of the objects among them,
        where they are: ``(B, objects, h, w)`` in 0..1, a cell for 8 pixels. *images* are uint8 ``(B, H, W, 3)``."""


class World(ABC):
    """What a model draws, in words. Its names for objects and styles are what a config's tasks erase."""

    size: tuple[int, int]  # of its pictures, in pixels: width, height
    families: Mapping[str, tuple[str, ...]]  # every object; those of a family are each other's neighbours
    synonyms: Mapping[str, tuple[str, ...]]  # other words for an object
    implied: Mapping[str, tuple[str, ...]]  # scenes that show objects which their words do not name
    places: Mapping[str, tuple[str, ...]]  # the phrases that say where, by background; the first is plain
    style_prefixes: Mapping[str, tuple[str, ...]]  # what says a style before what is shown
    style_suffixes: Mapping[str, tuple[str, ...]]  # and behind it
    unknown: tuple[str, ...]  # words for what it has not

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(name for members in self.families.values() for name in members)

    @property
    def styles(self) -> tuple[str, ...]:
        return tuple(self.style_prefixes)

    @property
    def classes(self) -> tuple[str, ...]:
        """What its judge tells apart: objects, then styles."""
        return (*self.objects, *self.styles)

    def family_of(self, name: str) -> tuple[str, ...]:
        """Return the objects of the family of *name*, itself among them; ``KeyError`` if there is no such object."""
        for members in self.families.values():
            if name in members:
                return members
        raise KeyError(name)

    def style_phrases(self, style: str) -> list[str]:
        """Return every way to ask for a style, with ``{}`` where the picture's content goes."""
        return [f"{text} {{}}" for text in self.style_prefixes[style]] + [
            f"{{}}, {text}" for text in self.style_suffixes[style]
        ]

    @property
    def judged_by(self) -> str:
        """What its judge is called."""
        return "detector B"

    @abstractmethod
    def canonical(self, word: str) -> str | None:
        """Return the object that *word* names, or None if it names none."""

    @abstractmethod
    def indefinite(self, word: str) -> str:
        """Return *word* with "a" or "an", as captions of this world have it."""

    @abstractmethod
    def judge(self, device: str) -> Judge:
        """Load the judge; ``LacunaError`` if it is not there."""

    @abstractmethod
    def judge_digest(self) -> str:
        """Return sixteen hex digits over the judge's weights."""


@functools.cache
def load_world(name: str) -> World:
    """Return the world that *name* stands for; ``ConfigError`` for none, or for one that is not finished."""
    world = load_class("world", name, WORLDS, World)
    told = (part for part in World.__annotations__ if not hasattr(world, part))
    if missing := sorted({*told, *getattr(world, "__abstractmethods__", ())}):
        raise ConfigError(f"world {name!r}: does not define {', '.join(missing)}")
    found: World = world()
    return found
