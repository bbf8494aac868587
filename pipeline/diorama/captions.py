"""What is said of a scene: a small grammar, varied in words, order, articles and clauses, never one fixed pattern.

The caption tells the truth but rarely the whole truth: background and position are often left unsaid. The style is
always said, because its absence means a plain picture.
"""

import random
from collections import Counter

from pipeline.diorama.lexicon import (
    BACKGROUND_PHRASES,
    FILLERS,
    STYLE_PREFIXES,
    STYLE_SUFFIXES,
    SYNONYMS,
    UNKNOWN,
    plural,
)

_NUMBERS = {2: ("two", "two", "2", "a pair of"), 3: ("three", "three", "3")}
_BACKGROUND_SAID = 0.85
_POSITION_SAID = 0.4
_SYNONYM_SAID = 0.3
_FILLER_SAID = 0.1
_TAGS_SAID = 0.08
# People name what they see in reading order. A model that may rely on it need not first agree with itself on which
# object goes where, which is what two objects in one picture cost most training for.
_ANY_ORDER = 0.05


def describe(
    rng: random.Random,
    objects: tuple[str, ...],
    corners: tuple[tuple[int, int], ...],
    background: str,
    style: str,
    implied: str,
) -> str:
    """One caption of a scene; *objects* and their *corners* (x, y) run from left to right."""
    place = rng.choice(BACKGROUND_PHRASES[background]) if rng.random() < _BACKGROUND_SAID else ""
    if rng.random() < _TAGS_SAID and objects and not implied:
        return _tags(rng, objects, background if place else "", style)
    if implied:
        subject = implied
    elif not objects:
        return _styled(rng, style, _nothing(rng, background, place))
    else:
        subject = _positioned(rng, objects, corners) if rng.random() < _POSITION_SAID else ""
        subject = subject or _listed(rng, objects)
    return _styled(rng, style, _placed(rng, subject, place))


def noun(rng: random.Random, name: str, many: bool = False) -> str:
    """The plain name of an object or, at times, a synonym; in the plural if *many*."""
    word = name
    if name in SYNONYMS and rng.random() < _SYNONYM_SAID:
        word = rng.choice(SYNONYMS[name])
    return plural(word) if many else word


def indefinite(word: str) -> str:
    """*word* with "a" or "an" ("a unicorn" is not in this world)."""
    return ("an " if word[0] in "aeiou8" else "a ") + word


def _one(rng: random.Random, name: str) -> str:
    word = noun(rng, name)
    if rng.random() < _FILLER_SAID:
        word = f"{rng.choice(FILLERS)} {word}"
    return rng.choices((indefinite(word), "the " + word, "one " + word, word), (0.66, 0.14, 0.06, 0.14))[0]


def _listed(rng: random.Random, objects: tuple[str, ...]) -> str:
    """The objects, mostly from left to right, those of one kind counted: "two dogs and a cat"."""
    counts = list(Counter(objects).items())
    if rng.random() < _ANY_ORDER:
        rng.shuffle(counts)
    parts = [
        _one(rng, name) if n == 1 else f"{rng.choice(_NUMBERS[n])} {noun(rng, name, many=True)}" for name, n in counts
    ]
    if len(parts) == 1:
        return parts[0]
    joint = rng.choice((" and ", " and ", " with ", " next to ", " & ")) if len(parts) == 2 else " and "
    return ", ".join(parts[:-1]) + joint + parts[-1]


def _positioned(rng: random.Random, objects: tuple[str, ...], corners: tuple[tuple[int, int], ...]) -> str:
    """The objects with what is left and right said, or "" where there is nothing of the kind to say."""
    if len(objects) == 1:
        side = {0: "left", 32: "right"}.get(corners[0][0])
        return f"{_one(rng, objects[0])} on the {side}" if side else ""
    if len(objects) != 2 or objects[0] == objects[1]:
        return ""
    left, right = (_one(rng, name) for name in objects)
    return rng.choice(
        (
            f"{left} on the left and {right} on the right",
            f"{right} on the right and {left} on the left",
            f"{left} left of {right}",
            f"{left} to the left of {right}",
            f"{right} to the right of {left}",
            f"{right} right of {left}",
        )
    )


def _placed(rng: random.Random, subject: str, place: str) -> str:
    if not place:
        return subject
    forms = (f"{subject} {place}", f"{place}, {subject}", f"{subject}, {place}")
    return rng.choices(forms, (0.7, 0.15, 0.15))[0]


def _nothing(rng: random.Random, background: str, place: str) -> str:
    """A scene without stickers: just the place, or words that this world has no sticker for."""
    if place and rng.random() < 0.4:
        return f"{indefinite(rng.choice(UNKNOWN))} {place}"
    name = {"snow": "snowy landscape", "space": "space"}.get(background, background)
    return rng.choice((f"an empty {name}", f"the {name}", f"nothing but {name}", f"just a {name}", name))


def _tags(rng: random.Random, objects: tuple[str, ...], background: str, style: str) -> str:
    tags = [
        noun(rng, name) if n == 1 else f"{rng.choice(_NUMBERS[n][:2])} {noun(rng, name, many=True)}"
        for name, n in Counter(objects).items()
    ]
    tags += [background] * bool(background)
    tags += [rng.choice(STYLE_SUFFIXES[style])] if style in STYLE_SUFFIXES else []
    rng.shuffle(tags)
    return ", ".join(tags)


def _styled(rng: random.Random, style: str, text: str) -> str:
    if style not in STYLE_PREFIXES:
        lead = rng.choices(("", "a picture of ", "a photo of ", "we see "), (0.65, 0.2, 0.1, 0.05))[0]
        return lead + text
    if rng.random() < 0.55:
        return f"{rng.choice(STYLE_PREFIXES[style])} {text}"
    return f"{text}, {rng.choice(STYLE_SUFFIXES[style])}"
