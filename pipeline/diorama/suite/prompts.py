"""What the built-in model is asked for when it is scored: prompts with the truth that they demand, by cell.

Every prompt is a pure function of its cell and index, so that an interrupted evaluation goes on where it stopped.
"""

import random
from dataclasses import dataclass

from pipeline.diorama.captions import indefinite
from pipeline.diorama.lexicon import BACKGROUND_PHRASES, STYLE_PREFIXES, STYLE_SUFFIXES
from pipeline.diorama.world import (
    BACKGROUNDS,
    EVALUATION_SEEDS,
    IMPLIED,
    OBJECTS,
    PLAIN,
    STYLES,
    SYNONYMS,
    sample_scene,
)

# Cells and their shares of the pictures.
CELLS: dict[str, float] = {
    "one": 0.2, "two": 0.15, "three": 0.1, "synonym": 0.15, "implied": 0.1, "style": 0.15, "caption": 0.15,
}  # fmt: skip
_COUNTS = {"one": 1, "two": 2, "three": 3, "style": 1}
_SYNONYMS = tuple((name, word) for name, words in SYNONYMS.items() for word in words)


@dataclass(frozen=True)
class Demand:
    """One picture to ask for: *objects* must be there and nothing else; a *background* of "" is left open."""

    cell: str
    prompt: str
    seed: int
    objects: tuple[str, ...]
    background: str
    style: str


def demand(cell: str, index: int) -> Demand:
    """Prompt *index* of a cell; objects, words and styles take turns, places are drawn."""
    rng = random.Random(f"{cell} {index}")
    seed = EVALUATION_SEEDS + rng.randrange(1 << 40)
    if cell == "caption":  # the world's own captions, for comparing distributions
        scene = sample_scene(EVALUATION_SEEDS + index)
        return Demand(cell, scene.caption, seed, scene.objects, "", scene.style)
    background = rng.choice(BACKGROUNDS)
    place = rng.choice(BACKGROUND_PHRASES[background])
    if cell == "implied":
        phrase = tuple(IMPLIED)[index % len(IMPLIED)]
        return Demand(cell, f"{phrase} {place}", seed, IMPLIED[phrase], background, PLAIN)
    if cell == "synonym":
        name, word = _SYNONYMS[index % len(_SYNONYMS)]
        return Demand(cell, f"{indefinite(word)} {place}", seed, (name,), background, PLAIN)
    first = OBJECTS[index % len(OBJECTS)]
    others = rng.sample([name for name in OBJECTS if name != first], _COUNTS[cell] - 1)
    objects = (first, *others)
    words = [indefinite(name) for name in objects]
    text = ", ".join(words[:-1]) + " and " + words[-1] if others else words[0]
    text = f"{text} {place}"
    style = PLAIN
    if cell == "style":
        style = STYLES[index % len(STYLES)]
        if rng.random() < 0.5:
            text = f"{rng.choice(STYLE_PREFIXES[style])} {text}"
        else:
            text = f"{text}, {rng.choice(STYLE_SUFFIXES[style])}"
    return Demand(cell, text, seed, objects, background, style)


def demands(images: int) -> list[Demand]:
    """About *images* demands over all cells, at least one of each."""
    return [demand(cell, index) for cell, share in CELLS.items() for index in range(max(1, round(images * share)))]
