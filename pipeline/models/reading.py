"""How prompts are read: which of their tokens a text encoder is given, in how many chunks, and with which weights.

- ``long_prompts: truncate``: what is beyond an encoder's length is not read. ``chunks``: every 75 tokens are encoded
  as a text of their own, with a start and an end, and the embeddings (77 of each) put one after another for attention,
  as A1111's web UI, compel and sd_embed do. A chunk is cut at 75 tokens, also inside a word; commas are not sought.
  The pooled vector is that of the first chunk. What is to be as long as another text, as negative prompts are, is
  filled up with chunks of the empty text.
- ``prompt_syntax: a1111``: ``emphasis`` tells weights and breaks. Text of each weight is tokenized by itself, and the
  embedding of each of its tokens multiplied by the weight; start, end and padding keep theirs, and so does the pooled
  vector (A1111's emphasis mode "No norm"). What stands between breaks begins a chunk each, whatever ``long_prompts``.

A text of one chunk without syntax is encoded as ever, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.concepts.normal import pieces
from pipeline.config.sections.generation import GenerationConfig, LongPrompts, PromptSyntax
from pipeline.errors import ConfigError
from pipeline.models import emphasis
from pipeline.models.emphasis import Run
from pipeline.models.extent import Extent, Part
from pipeline.models.family import Conditioning, Family, TextStream


@dataclass(frozen=True)
class Reading:
    """How some prompts are read. Each is encoded to ``chunks`` chunks: longer ones are cut off, shorter filled up."""

    long_prompts: LongPrompts = LongPrompts.truncate
    syntax: PromptSyntax = PromptSyntax.plain
    chunks: int = 1

    @classmethod
    def of(cls, generation: GenerationConfig) -> "Reading":
        return cls(generation.long_prompts, generation.prompt_syntax)

    @property
    def plain(self) -> bool:
        """Whether it is no more than what every family does."""
        return self.long_prompts is LongPrompts.truncate and self.syntax is PromptSyntax.plain


PLAIN = Reading()


def check_reading(generation: GenerationConfig, family: Family | type[Family]) -> None:
    """Raise ``ConfigError`` for a way of reading prompts that *family* does not offer."""
    if Reading.of(generation).plain:
        return
    key = "long_prompts" if generation.long_prompts is not LongPrompts.truncate else "prompt_syntax"
    asked = f"generation.{key}: {getattr(generation, key)} does not work on {family.name}"
    if "chunks" not in family.offers:
        reason = family.lacks.get("chunks", "it does not offer 'chunks'")
        raise ConfigError(f"{asked}: {reason}; expected {getattr(GenerationConfig, key)}")
    if isinstance(family, Family):
        text = family.encode([""])
        ids = Reader(family, Reading(syntax=PromptSyntax.a1111)).encode([""])
        if (text.mask is None) != (ids.mask is None) or not torch.equal(text.embeds, ids.embeds):
            raise ConfigError(f"{asked}: it offers 'chunks', but its encode_ids does not give what its encode gives")


class RowKind(IntEnum):
    """What a row of ``Conditioning.embeds`` is of."""

    start = 0
    word = 1
    end = 2
    padding = 3


class Token(NamedTuple):
    """A token of characters ``start:stop`` of a prompt."""

    id: int
    weight: float
    start: int
    stop: int


class Reader:
    """Reads prompts for one family in one way."""

    def __init__(self, family: Family, reading: Reading = PLAIN):
        self.family = family
        self.reading = reading
        self.streams = family.streams

    def filling(self, chunks: int) -> "Reader":
        """Return one that encodes to so many chunks."""
        return Reader(self.family, replace(self.reading, chunks=chunks))

    def chunks_of(self, text: str) -> int:
        """Return how many chunks *text* asks for."""
        return 1 if self.reading.plain else len(self._chunks(text, self.streams[0]))

    def extent(self, text: str) -> Extent:
        """Return how far *text* is read, by the encoder that reads furthest."""
        asked = tuple(Part.of(runs) for runs in self._runs(text))
        furthest: tuple[int, list[list[Token]], list[list[Token]]] | None = None  # last character, parts, what is read
        for stream in self.streams:
            parts = self._parts(text, stream)
            chunked = self.reading.long_prompts is LongPrompts.chunks
            read = parts if chunked else [part[: self._room(stream)] for part in parts]
            if read == parts:
                return Extent(sum(map(len, parts)), 0, text, asked, asked)
            last = max((part[-1].stop for part in read if part), default=0)
            if furthest is None or last > furthest[0]:
                furthest = last, parts, read
        assert furthest is not None
        _, parts, read = furthest
        count, total = sum(map(len, parts)), sum(map(len, read))
        ends = [part[-1].stop if part else 0 for part in read]
        borders = [_border(text, own, part) for own, part in zip(read, parts, strict=True)]
        told = self._cut(text, ends)
        cut = [len(own) < len(part) for own, part in zip(read, parts, strict=True)]
        said = tuple(Part.of(*each) for each in zip(self._cut(text, borders), cut, strict=True))
        return Extent(total, count - total, emphasis.written(told) if self._weighs else told[0][0].text, said, asked)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Encode *texts* as one batch, each to ``reading.chunks`` chunks."""
        if not self._weighs and self.reading.chunks == 1:
            return self.family.encode(list(texts))
        rows = [self._filled(text, self.streams[0]) for text in texts]
        encoded = [self._encode([row[k] for row in rows]) for k in range(self.reading.chunks)]
        masks = [part.mask for part in encoded if part.mask is not None]
        embeds = torch.cat([part.embeds for part in encoded], dim=1)
        return replace(encoded[0], embeds=embeds, mask=torch.cat(masks, dim=1) if masks else None)

    def encode_negative(self, texts: Sequence[str]) -> Conditioning:
        """Encode negative prompts likewise."""
        if not self._weighs and self.reading.chunks == 1:
            return self.family.encode_negative(list(texts))
        return self.family.as_negative(self.encode(texts), texts)

    def rows(self, text: str, spans: Sequence[tuple[int, int]]) -> list[list[int]]:
        """Return, for each character span of *text*, the rows of ``embeds`` that its tokens fill, in every stream.

        A span that truncation cut off, or that tokenises to nothing, has none.
        """
        found: list[list[int]] = [[] for _ in spans]
        for stream in self.streams:
            for k, chunk in enumerate(self._filled(text, stream)):
                for i, token in enumerate(chunk, stream.first + k * stream.length):
                    for own, (start, stop) in zip(found, spans, strict=True):
                        # A token belongs to the span that it overlaps.
                        if token.start < min(token.stop, stop) and token.stop > start:
                            own.append(i)
        return found

    def kinds(self, text: str) -> Tensor:
        """Return the ``RowKind`` of each row of ``embeds``, int64 ``(T,)``."""
        kinds: list[RowKind] = []
        for stream in self.streams:
            for chunk in self._filled(text, stream):
                row = [RowKind.start] * (stream.first - stream.offset) + [RowKind.word] * len(chunk) + [RowKind.end]
                kinds += row + [RowKind.padding] * (stream.length - len(row))
        return torch.tensor(kinds)

    def weights(self, text: str) -> Tensor:
        """Return by what each row of ``embeds`` was multiplied, float32 ``(T,)``."""
        weights: list[float] = []
        for stream in self.streams:
            for chunk in self._filled(text, stream):
                row = [1.0] * (stream.first - stream.offset) + [token.weight for token in chunk]
                weights += row + [1.0] * (stream.length - len(row))
        return torch.tensor(weights)

    def chunk_ids(self, text: str) -> list[list[int]]:
        """Return the ids of each chunk of *text* in the first stream, from its start to its end, without padding."""
        return [[*self._special[0], *(t.id for t in c), *self._special[1]] for c in self._filled(text, self.streams[0])]

    def chunk_texts(self, text: str) -> list[str]:
        """Return what each chunk of *text* says in the first stream, without syntax."""
        words, chunks = self.words(text), self._filled(text, self.streams[0])
        return [words[chunk[0].start : chunk[-1].stop] if chunk else "" for chunk in chunks]

    def words(self, text: str) -> str:
        """Return *text* with a blank in the place of each character that is syntax."""
        if not self._weighs:
            return text
        said = self._places(text)
        return "".join(char if place in said else " " for place, char in enumerate(text))

    def said(self, text: str, start: int, stop: int) -> list[tuple[int, int]]:
        """Return characters ``start:stop`` of *text* without its syntax: the spans of what is said, in order."""
        if not self._weighs:
            return [(start, stop)]
        said, spans = self._places(text), list[tuple[int, int]]()
        for place in range(start, stop):
            if place in said:
                first = spans.pop()[0] if spans and spans[-1][1] == place else place
                spans.append((first, place + 1))
        return spans

    def literal(self, text: str) -> str:
        """Return what is read as *text*, whatever signs are in it."""
        return emphasis.escaped(text) if self._weighs else text

    def _encode(self, chunks: Sequence[Sequence[Token]]) -> Conditioning:
        """Encode one chunk of each text."""
        (stream,) = self.streams
        before, after = self._special
        ids = torch.full((len(chunks), stream.length), stream.tokenizer.pad_token_id)
        weights = torch.ones(ids.shape)
        for row, chunk in enumerate(chunks):
            own = [*before, *(token.id for token in chunk), *after]
            ids[row, : len(own)] = torch.tensor(own)
            weights[row, len(before) : len(before) + len(chunk)] = torch.tensor([token.weight for token in chunk])
        encoded = self.family.encode_ids(ids)
        if (weights == 1).all():
            return encoded
        return replace(encoded, embeds=encoded.embeds * weights.to(encoded.embeds)[:, :, None])

    def _filled(self, text: str, stream: TextStream) -> list[list[Token]]:
        """Return the tokens of the chunks that are encoded of *text*."""
        chunks = self._chunks(text, stream)[: self.reading.chunks]
        return chunks + [[] for _ in range(self.reading.chunks - len(chunks))]

    def _chunks(self, text: str, stream: TextStream) -> list[list[Token]]:
        """Return the tokens of the chunks that *text* asks for."""
        room, chunks = self._room(stream), []
        for part in self._parts(text, stream):
            stop = len(part) if self.reading.long_prompts is LongPrompts.chunks else room
            chunks += [part[i : i + room] for i in range(0, min(len(part), stop), room)] or [[]]
        return chunks

    def _parts(self, text: str, stream: TextStream) -> list[list[Token]]:
        """Return the tokens of *text* between its breaks, read or not."""
        return [[token for run in part for token in _tokens(stream, run)] for part in self._runs(text)]

    def _places(self, text: str) -> set[int]:
        """Return which characters of *text* are no syntax."""
        return {place for part in self._runs(text) for run in part for place in run.places}

    def _runs(self, text: str) -> list[list[Run]]:
        return emphasis.parse(text) if self._weighs else [[Run(text, 1.0, range(len(text)))]]

    def _cut(self, text: str, ends: Sequence[int]) -> list[list[Run]]:
        """Return the runs of each part of *text*, cut off at one of the characters *ends*."""
        parts = []
        for part, end in zip(self._runs(text), ends, strict=True):
            lengths = [sum(place < end for place in run.places) for run in part]
            parts.append([Run(run.text[:n], run.weight, run.places[:n]) for run, n in zip(part, lengths, strict=True)])
        return parts

    @property
    def _weighs(self) -> bool:
        return self.reading.syntax is not PromptSyntax.plain

    @cached_property
    def _special(self) -> tuple[list[int], list[int]]:
        """The ids before and after a text in the first stream."""
        ids = list(self.streams[0].tokenizer("").input_ids)
        first = self.streams[0].first - self.streams[0].offset
        return ids[:first], ids[first:]

    def _room(self, stream: TextStream) -> int:
        """Return how many tokens of a text *stream* reads at once."""
        return stream.length - len(stream.tokenizer("").input_ids)


def whole_reader(family: Family, text: str) -> Reader:
    """Return what reads *text*, as it stands, in as many chunks as it needs, where the family reads any."""
    reader = Reader(family, Reading(LongPrompts.chunks) if "chunks" in family.offers else PLAIN)
    return reader.filling(reader.chunks_of(text))


def _tokens(stream: TextStream, run: Run) -> list[Token]:
    read = stream.tokenizer(run.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens = []
    for token, (start, stop) in zip(read.input_ids, read.offset_mapping, strict=True):
        first, last = (run.places[start], run.places[stop - 1] + 1) if start < stop else (0, 0)
        tokens.append(Token(token, run.weight, first, last))
    return tokens


def _border(text: str, read: Sequence[Token], part: Sequence[Token]) -> int:
    """Return where what is *read* of the tokens of a *part* of *text* ends, or where the word begins, or the character,
    of which it has the beginning alone."""
    end = read[-1].stop if read else 0
    if len(read) < len(part):
        end = min(end, part[len(read)].start)  # several tokens may spell one character
    return next((piece.start for piece in pieces(text) if piece.start < end < piece.stop), end)
