"""Where words lie in a prompt and in its tokens, and prompts with words put in their place.

Whole words, whatever their case, and their plain plurals ("cats", "foxes"). Knows text and tokenizers only.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from pipeline.models.family import TextStream


@lru_cache(maxsize=4096)
def word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that finds any of *words* as whole words, longest first, with an optional plural ending."""
    alternatives = "|".join(
        r"\s+".join(re.escape(part) for part in word.split()) for word in sorted(words, key=len, reverse=True)
    )
    return re.compile(rf"(?<!\w)(?:{alternatives})(?:e?s)?(?!\w)", re.IGNORECASE)


def word_spans(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the character spans of *words* in *text*."""
    return [match.span() for match in word_pattern(tuple(words)).finditer(text)]


def replace_words(text: str, words: Sequence[str], replacement: str) -> str:
    """Return *text* with each of *words* replaced, or with the bare word removed where *replacement* is empty."""
    if replacement:
        return word_pattern(tuple(words)).sub(replacement, text)
    without = re.sub(rf"(?:\b(?:an?|the)\s+)?{word_pattern(tuple(words)).pattern}", "", text, flags=re.IGNORECASE)
    return " ".join(without.split())


def token_spans(stream: TextStream, text: str, spans: Sequence[tuple[int, int]]) -> list[range]:
    """Return, for each character span of *text*, the rows of ``Conditioning.embeds`` that its tokens fill.

    A span that truncation cut off, or that tokenises to nothing, gives an empty range.
    """
    offsets = stream.tokenizer(
        text, return_offsets_mapping=True, truncation=True, max_length=stream.length
    ).offset_mapping
    ranges = []
    for start, stop in spans:
        # Special tokens have empty offsets; a token belongs to the span that it overlaps.
        hits = [i for i, (a, b) in enumerate(offsets) if a < b and a < stop and b > start]
        ranges.append(range(stream.offset + hits[0], stream.offset + hits[-1] + 1) if hits else range(0))
    return ranges


def end_of_text(stream: TextStream, text: str) -> int:
    """Return the row of ``embeds`` that holds the end-of-text token of *text*."""
    ids = stream.tokenizer(text, truncation=True, max_length=stream.length).input_ids
    return stream.offset + len(ids) - 1
