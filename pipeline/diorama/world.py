"""Scenes of the diorama: which stickers stand where, on what background, in what style, and what is said of them.

A scene is a pure function of its seed. It knows nothing of pixels (see ``render``) and needs no font.

Stickers are all 32 px wide and stand on an 8-px grid, so that a sticker meets the 4-px cells of the latent space and
the 8-px cells of the UNet's lower level always in the same phase: a model of a few million parameters then learns one
appearance per object instead of one per position, which is most of what makes training on a CPU feasible.
"""

import random
from dataclasses import dataclass

from pipeline.diorama.captions import describe
from pipeline.diorama.lexicon import (
    BACKGROUNDS,
    FAMILIES,
    IMPLIED,
    OBJECTS,
    STYLES,
    SYNONYMS,
    canonical,
    family_of,
    plural,
)

__all__ = [
    "BACKGROUNDS", "EVALUATION_SEEDS", "FAMILIES", "IMPLIED", "OBJECTS", "PICTURE_SIZE", "PLAIN", "STICKER_SIZE",
    "STYLES", "SYNONYMS", "Scene", "canonical", "family_of", "plural", "recaption", "sample_scene",
]  # fmt: skip

PICTURE_SIZE = 64
STICKER_SIZE = 32
PLAIN = "plain"

# Seeds from here on are never trained on.
EVALUATION_SEEDS = 1 << 40

# Shares of the kinds of scene. Empty ones teach what an anchor of "nothing" looks like.
_COUNT_SHARES = {0: 0.05, 1: 0.26, 2: 0.37, 3: 0.32}
_PLAIN_SHARE = 0.55
_IMPLIED_SHARE = 0.08
_MIRRORED_SHARE = 0.2  # of the implied scenes: what they show stands in the other order
_TWINS_SHARE = 0.12  # of the scenes with two or three stickers: all of them the same object


@dataclass(frozen=True)
class Scene:
    """One picture as facts: ``corners`` are the upper left pixels (x, y) of the stickers, in the order of ``objects``.

    Objects are ordered from left to right, then from top to bottom. ``implied`` is the phrase of ``IMPLIED`` that
    the scene stands for, or empty.
    """

    seed: int
    objects: tuple[str, ...]
    corners: tuple[tuple[int, int], ...]
    background: str
    style: str
    implied: str
    caption: str

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """(left, top, right, bottom) in pixels, right and bottom exclusive."""
        return tuple((x, y, x + STICKER_SIZE, y + STICKER_SIZE) for x, y in self.corners)


def sample_scene(
    seed: int, *, count: int | None = None, style: str | None = None, background: str | None = None
) -> Scene:
    """The scene of *seed*; a given count of stickers (0 to 3), style or background replaces the drawn one.

    Raises KeyError or ValueError for a style, background or count that the world does not have.
    """
    if background is not None and background not in BACKGROUNDS:
        raise KeyError(background)
    if style is not None and style != PLAIN and style not in STYLES:
        raise KeyError(style)
    if count is not None and count not in _COUNT_SHARES:
        raise ValueError(f"count is {count}, expected 0 to 3")
    rng = random.Random(seed)
    implied = ""
    if count is None and rng.random() < _IMPLIED_SHARE:
        implied = rng.choice(tuple(IMPLIED))
        objects = list(IMPLIED[implied])
        if rng.random() < _MIRRORED_SHARE:
            objects.reverse()
    else:
        if count is None:
            count = rng.choices(tuple(_COUNT_SHARES), tuple(_COUNT_SHARES.values()))[0]
        if count > 1 and rng.random() < _TWINS_SHARE:
            objects = [rng.choice(OBJECTS)] * count
        else:
            objects = rng.sample(OBJECTS, count)
    if style is None:
        style = PLAIN if rng.random() < _PLAIN_SHARE else rng.choice(STYLES)
    if background is None:
        background = rng.choice(BACKGROUNDS)
    corners = _layout(rng, len(objects))
    caption = describe(rng, tuple(objects), corners, background, style, implied)
    return Scene(seed, tuple(objects), corners, background, style, implied, caption)


def recaption(scene: Scene, seed: int) -> str:
    """Another caption of the same scene."""
    rng = random.Random(seed)
    return describe(rng, scene.objects, scene.corners, scene.background, scene.style, scene.implied)


def _layout(rng: random.Random, count: int) -> tuple[tuple[int, int], ...]:
    """Upper left corners of *count* stickers that do not overlap."""
    if count == 0:
        return ()
    if count == 1:
        return ((rng.choice((0, 16, 16, 32)), rng.choice((8, 16, 24))),)
    if count == 2:
        return ((0, rng.choice((8, 16, 24))), (32, rng.choice((8, 16, 24))))
    if rng.random() < 0.5:
        return ((0, 0), (16, 32), (32, 0))
    return ((0, 32), (16, 0), (32, 32))
