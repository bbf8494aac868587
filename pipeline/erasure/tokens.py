"""Where words lie in a prompt and in its tokens, and prompts with words put in their place.

What counts as a word's being there is decided in ``pipeline.concepts.words`` alone, so that the plan's report, the
captions and the erasure agree. Knows text and tokenizers only.
"""

import re
from collections.abc import Sequence

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming
from pipeline.errors import ConfigError
from pipeline.models.family import TextStream

_ARTICLE = re.compile(r"\b(?:an?|the|one)\s+([(\[]*)$", re.IGNORECASE)


def word_spans(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the character spans of *words* in *text*."""
    return [(mention.start, mention.stop) for mention in Naming.of_words(words).mentions(text)]


def replace_spans(
    text: str, spans: Sequence[tuple[int, int]], replacements: Sequence[str]
) -> tuple[str, list[tuple[int, int]]]:
    """Return *text* with its *spans* (ascending, apart) replaced, and the spans of the replacements in it.

    An empty replacement takes the article before it along, and has no span.

    >>> replace_spans("a cat by the sea", [(2, 5)], ["dog"]), replace_spans("a cat by the sea", [(2, 5)], [""])
    (('a dog by the sea', [(2, 5)]), (' by the sea', []))
    """
    result, new, at = "", [], 0
    for (start, stop), replacement in zip(spans, replacements, strict=True):
        before = text[at:start]
        result += before if replacement else _ARTICLE.sub(r"\1", before)
        if replacement:
            new.append((len(result), len(result) + len(replacement)))
        result += replacement
        at = stop
    return result + text[at:], new


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


def word_rows(stream: TextStream, text: str, word: str, label: str) -> range:
    """Return the rows of ``Conditioning.embeds`` that *word*, which has tokens, fills in *text*, a template with it.

    Raises ``ConfigError``, beginning with *label*, where the text is cut off before the word's end.
    """
    spans = word_spans(text, [word])[:1]
    (rows,) = token_spans(stream, text, spans)
    whole = len(stream.tokenizer(text[: spans[0][1]]).input_ids) <= stream.length
    if not (whole and rows):
        raise ConfigError(
            f"{label}: a template is too long: the text encoder does not read the word {word!r} in {text!r}, as it "
            f"reads {stream.length} tokens"
        )
    return rows


def end_of_text(stream: TextStream, text: str) -> int:
    """Return the row of ``embeds`` that holds the end-of-text token of *text*."""
    ids = stream.tokenizer(text, truncation=True, max_length=stream.length).input_ids
    return stream.offset + len(ids) - 1


def check_concepts(streams: Sequence[TextStream], concepts: Sequence[Concept], label: str) -> None:
    """Raise ``ConfigError``, beginning with *label*, for concepts that no method can work with.

    That is: a word, anchor, neighbour or exception that tokenises to nothing or to what any unknown text does, or whose
    end is beyond what an encoder reads; and a neighbour that is one of the erased words, in the plural too, or has one
    in it. (That a word of the concept has a neighbour in it is no fault: "sneaker" may stay where one maker's goes.)
    """
    for concept in concepts:
        roles = [("word", word) for word in concept.words] + [("anchor", concept.anchor)] * bool(concept.anchor)
        roles += [("neighbour", word) for word in concept.preserve]
        roles += [("exception", phrase) for phrase in concept.keep]
        for role, word in roles:
            for stream in streams:
                if fault := _unread(stream, word):
                    raise ConfigError(f"{label}: the {role} {word!r} of concept {concept.name!r} {fault}")
    erased = Naming(concepts)
    for concept in concepts:
        for kept in concept.preserve:
            if found := erased.mentions(kept):
                named = kept[found[0].start : found[0].stop]
                raise ConfigError(
                    f"{label}: {kept!r}, which {concept.name!r} is to preserve, names {named!r}, which is to go"
                )


def _unread(stream: TextStream, word: str) -> str:
    """Return why the encoder does not read all of *word*, or nothing."""
    if not token_spans(stream, word, [(0, len(word))])[0]:
        return "tokenises to nothing"
    ids, unknown = stream.tokenizer(word).input_ids, stream.tokenizer.unk_token_id
    if len(ids) > stream.length:
        return f"is longer than the {stream.length} tokens that the text encoder reads"
    if unknown in ids and unknown != stream.tokenizer.eos_token_id:  # CLIP's are one, and it knows every byte
        return "has characters that the text encoder does not know: it reads all such text alike"
    return ""


def joined_words(stream: TextStream, concepts: Sequence[Concept], label: str) -> str:
    """Return one text that asks for all *concepts*: their names, then as many of their aliases as the encoder reads.

    Raises ``ConfigError`` where not even the names fit: the last ones would be cut off, and pass unnoticed.
    """
    names = [concept.name for concept in concepts]
    aliases = [alias for concept in concepts for alias in concept.aliases]
    if not _fits(stream, names):
        raise ConfigError(
            f"{label}: the names of its {len(names)} concepts are more than the {stream.length} tokens that the text "
            "encoder reads; give it fewer concepts"
        )
    kept = next(n for n in range(len(aliases), -1, -1) if _fits(stream, names + aliases[:n]))
    return ", ".join(names + aliases[:kept])


def _fits(stream: TextStream, words: Sequence[str]) -> bool:
    return len(stream.tokenizer(", ".join(words)).input_ids) <= stream.length
