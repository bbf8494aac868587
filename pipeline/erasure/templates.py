"""Templates: prompts with a place for a word, and the texts that edits keep as they are besides."""

import re

from pipeline.concepts.words import plurals
from pipeline.errors import ConfigError

TEMPLATES = (
    "{}",
    "a {}",
    "two {plural}",
    "a photo of a {}",
    "a {} and a tree",
    "a house and a {} in the snow",
)

# Texts that have nothing to do with most concepts, kept as they are besides a concept's own neighbours.
KEEP = (
    "a street in a city",
    "an old book on a table",
    "a portrait of a woman",
    "a man with a hat",
    "a car and a bicycle",
    "flowers in a garden",
    "a boat on a lake at sunset",
    "a plate of food",
    "a sketch of a building",
    "an abstract painting in blue and red",
    "a bird in the sky",
    "a chair in a room",
)


def check_template(template: str) -> None:
    """Refuse with ``ConfigError`` what is no text with one place, ``{}`` or ``{plural}``, for a word of its own."""
    if not re.fullmatch(r"(?:[^{}]*[^{}\w])?\{(?:plural)?\}(?:[^{}\w][^{}]*)?", template):
        raise ConfigError(f"template {template!r} must hold '{{}}' or '{{plural}}' once, as a word of its own")


def fill(template: str, word: str) -> str:
    """Return the template with *word* in it; for an empty word, what is left of the template without its noun.

    >>> fill("two {plural}", "fox"), fill("a photo of a {}", "")
    ('two foxes', 'a photo of')
    """
    if word:
        return template.format(word, plural=plurals(word)[0])
    return " ".join(re.sub(r"(?:\b(?:an?|the|two)\s+)?\{(?:plural)?\}", "", template).split())
