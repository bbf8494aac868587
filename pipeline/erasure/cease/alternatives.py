"""What a concerned prompt becomes: its text with the anchors in the concepts' place, and the vector of that.

Besides its tokens SDXL, SD3 and FLUX make one vector of a whole prompt (``pooled``), which modulates every layer. It
has no place in the picture, so it cannot be switched in space as attention can; methods that switch attention swap it
for concerned prompts as a whole, before sampling. From a prompt whose words only imply a concept its direction is taken
instead. Knows nothing of attention.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.concepts.concept import Concept
from pipeline.concepts.words import plurals
from pipeline.erasure.gate.encoder import THINGS
from pipeline.erasure.gate.text import Hit
from pipeline.erasure.method import Prompts
from pipeline.erasure.tokens import end_of_text, replace_spans
from pipeline.models.family import Conditioning, Family
from pipeline.models.reading import Reader, RowKind
from pipeline.models.transfer import to_device

# What stands for nothing where a concept has no anchor: the mean of these.
EVERYDAY = (
    "house", "tree", "car", "person", "photo", "beach", "snow", "night", "bus", "apple", "picture", "room", "water",
    "city", "street", "food", "man", "woman", "day", "color",
)  # fmt: skip
TOGETHER = 8  # encoded at a time, padded, so that what a text becomes does not depend on the others


def replaced(reader: Reader, text: str, hits: Sequence[Hit]) -> tuple[str, list[tuple[int, int]]]:
    """Return *text* with each hit's anchor in its place, in its number, and the character spans of the anchors."""
    spans, anchors = [], []
    for hit in hits:
        anchor = plurals(hit.concept.anchor)[0] if hit.plural and hit.concept.anchor else hit.concept.anchor
        said = reader.said(text, hit.start, hit.stop)  # syntax within it stays: "(hot:1.2) dog" is "(pizza:1.2)"
        spans += said
        anchors += [reader.literal(anchor), *[""] * (len(said) - 1)]
    return replace_spans(text, spans, anchors)


def implied_by(hits: Sequence[Hit]) -> list[str]:
    """Return the names of the concepts that any of *hits* only implies, whether another means them or not."""
    return sorted({hit.concept.name for hit in hits if not hit.meant})


def encode_together(reader: Reader, texts: Sequence[str]) -> Conditioning:
    """Encode *texts* so many at a time."""
    groups = [list(texts[i : i + TOGETHER]) for i in range(0, len(texts), TOGETHER)]
    parts = [reader.encode(g + [""] * (TOGETHER - len(g))).rows(slice(0, len(g))) for g in groups]
    return Conditioning.cat(parts)


def marked(reader: Reader, text: str, spans: Sequence[tuple[int, int]]) -> Tensor:
    """Return 1 at the tokens of *spans*, 0 elsewhere, ``(T,)``; 1 at all words where there are none."""
    rows = [row for found in reader.rows(text, spans) for row in found]
    if not rows:
        return (reader.kinds(text) == RowKind.word).float()
    marks = torch.zeros(len(reader.kinds(text)))
    marks[rows] = 1
    return marks


def spread(vectors: Tensor) -> Tensor:
    """Return how far vectors ``(N, ..., D)`` of common things lie apart in each dimension: ``(..., D)``."""
    return vectors.std(0).clamp_min(1e-12)


class Directions:
    """What lies between each of *concepts* and its anchor, or everyday words where it has none, in the embeddings of
    every text encoder that attention hears."""

    def __init__(self, family: Family, concepts: Sequence[Concept]):
        self.family = family
        self._spread = spread(torch.stack([self._kinds(thing) for thing in THINGS]))  # (streams, kinds, D)
        self._ends: dict[str, tuple[Tensor, Tensor]] = {}
        for concept in concepts:
            anchors = [concept.anchor] if concept.anchor else EVERYDAY
            anchor = torch.stack([self._kinds(word) for word in anchors]).mean(0)
            self._ends[concept.name] = self._kinds(concept.name), anchor

    def ends(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the embeddings of the concept *name* and of its anchor, float32 ``(streams, kinds, D)`` each: of the
        last token, the end of text and the mean of the padding, at their ``RowKind``; zeros for a start."""
        return self._ends[name]

    def less(self, embeds: Tensor, names: Sequence[str], reader: Reader, text: str) -> Tensor:
        """Take from *embeds* x ``(T, D)`` of *text* what lies beyond the anchor a of each concept in its direction u:
        x - relu((x - a) u) u, for every row with what its kind has; a start token is the same in every text.

        Dimensions are measured by their ``spread``, so that what is taken is the same however an encoder scales them.
        Where a token has a weight, it is taken from what was weighed.
        """
        kinds, weights = (to_device(of(text), embeds.device) for of in (reader.kinds, reader.weights))
        lengths = [stream.length * reader.reading.chunks for stream in reader.streams]
        stream = to_device(torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)), embeds.device)
        rows = embeds[: len(kinds)].float()  # zeros may follow, where an encoder is left out
        apart = self._spread[stream, kinds]
        for name in names:
            concept, anchor = (end[stream, kinds] for end in self._ends[name])
            u = normalize((concept - anchor) / apart, dim=-1)
            beyond = ((rows - weights[:, None] * anchor) / apart * u).sum(-1, keepdim=True)
            beyond = torch.where(weights[:, None] < 0, beyond.clamp_max(0), beyond.clamp_min(0))
            beyond[kinds == RowKind.start] = 0
            rows = rows - beyond * u * apart
        return torch.cat([rows.to(embeds.dtype), embeds[len(kinds) :]])

    def _kinds(self, word: str) -> Tensor:
        text = f"a {word}"
        embeds, found = self.family.encode([text]).embeds[0].float(), []
        for stream in self.family.streams:
            end, stop = end_of_text(stream, text), stream.offset + stream.length
            padding = embeds[min(end + 1, stop - 1) : stop].mean(0)
            found.append(torch.stack([torch.zeros_like(padding), embeds[end - 1], embeds[end], padding]))
        return torch.stack(found)


def swap_pooled(family: Family, prompts: Prompts, hits: Sequence[Sequence[Hit]]) -> Prompts:
    """Return *prompts* with the pooled vectors of those that have *hits*.

    Where words mean a concept the vector is that of the text with the anchors in their place.
    A concept that is only implied is taken from the vector x, so far as x lies beyond its anchor a in the direction u
    from anchor to concept, each dimension measured by its ``spread``: x - relu((x - a) u) u.
    """
    before = prompts.positive.pooled
    if before is None or not any(hits):
        return prompts
    pooled, reader = before.clone(), prompts.reader(family)
    meant = {i: [hit for hit in found if hit.meant] for i, found in enumerate(hits)}
    rows = [i for i, found in meant.items() if found]
    if rows:
        others = encode_together(reader, [replaced(reader, prompts.texts[i], meant[i])[0] for i in rows])
        assert others.pooled is not None
        pooled[rows] = others.pooled
    for i, found in enumerate(hits):
        for concept in {hit.concept.name: hit.concept for hit in found if not hit.meant}.values():
            anchor = family.summary(f"a {concept.anchor}" if concept.anchor else "").float()
            apart = spread(family.summaries([f"a {thing}" for thing in THINGS]).float())
            u = normalize((family.summary(f"a {concept.name}").float() - anchor) / apart, dim=0)
            beyond = ((pooled[i].float() - anchor) / apart @ u).relu()
            pooled[i] = (pooled[i].float() - beyond * u * apart).to(pooled.dtype)
    return prompts.changed(positive=replace(prompts.positive, pooled=pooled))
