"""Where words lie in a prompt and in its tokens, and prompts with words put in their place.

What counts as a word's being there is decided in ``pipeline.prompts.mentions`` alone, so that the plan's report, the
captions and the erasure agree. Knows text and tokenizers only.
"""

import re
from collections.abc import Sequence

from pipeline.erasure.concept import Concept
from pipeline.models.family import TextStream
from pipeline.prompts.mentions import concept_pattern, is_plural, plurals


def word_pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Return the pattern that finds any of *words*, in the singular or the plural."""
    return concept_pattern(_as_concept(words))


def word_spans(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the character spans of *words* in *text*."""
    return [match.span() for match in word_pattern(words).finditer(text)]


def replace_words(text: str, words: Sequence[str], replacement: str) -> str:
    """Return *text* with *replacement*, in the same number, for each of *words*; an empty one removes them.

    >>> replace_words("two cats and a kitten", ["cat", "kitten"], "dog"), replace_words("a cat at sea", ["cat"], "")
    ('two dogs and a dog', 'at sea')
    """
    if not replacement:
        return " ".join(
            re.sub(rf"(?:\b(?:an?|the|one|two|three)\s+)?{word_pattern(words).pattern}", "", text, flags=re.I).split()
        )
    concept = _as_concept(words)
    plural = plurals(replacement)[0]
    return word_pattern(words).sub(lambda match: plural if is_plural(match[0], concept) else replacement, text)


def _as_concept(words: Sequence[str]) -> Concept:
    return Concept(name=words[0], aliases=tuple(words[1:]))


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
