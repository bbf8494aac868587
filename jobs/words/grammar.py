"""Sentences with a word in them, made by a grammar: a word's states are taken from them, and heads trained on them."""

from collections.abc import Sequence

from pipeline.concepts.everyday import everyday
from pipeline.prompts.seeds import hashed

# In each, {} is the word, and [] another everyday word.
TRAINED = (
    "a photo of a {}", "a {} and a []", "the [] in front of a {}", "a [] with a {}, a []", "a sketch of a {} at night",
    "a [] {} on the table",
)  # fmt: skip
ASKED = ("a picture of a {} in a room", "a {} next to a []", "one {}, a [] and a []")
FILLERS = 200  # of the most frequent everyday words


def sentences(words: Sequence[str], forms: Sequence[str]) -> tuple[list[str], list[tuple[int, int]]]:
    """Return a sentence of each of *forms* for each of *words*, word by word, and where in it the word stands.

    The other words of a form are the same for all words, so that what they say cancels.
    """
    texts, spans = [], []
    filled = [_filled(form) for form in forms]
    for word in words:
        for before, after in filled:
            texts.append(f"{before}{word}{after}")
            spans.append((len(before), len(before) + len(word)))
    return texts, spans


def _filled(form: str) -> tuple[str, str]:
    parts = form.split("[]")
    text = parts[0]
    for i, part in enumerate(parts[1:]):
        text += everyday()[hashed("words", form, i) % FILLERS] + part
    before, after = text.split("{}")
    return before, after
