"""WHEN: how near the words of a prompt come to a concept, in the text encoder's own eyes. Costs no denoiser forward.

A listed word counts 1: ``pipeline.concepts.mentions`` finds it, the same for every encoder. Any other word w comes
near by cos(E(w) - m, E(c) - m), E being the embedding of "a w" at its end-of-text token (or, where the architecture has
one, its pooled vector) and m the mean of E over everyday words, without which all CLIP embeddings look alike (cosines
of .7 and more). Where it comes nearer to a listed neighbour, by r, it counts r less: a leopard is a tiger rather than a
cat, while a war may show a gun although it shows a bomb as surely.

Embeddings of the whole prompt tell less: at the end of the text they are diluted by what else the prompt names, at each
token in its context by its neighbours. (What is scored how on the diorama is in
``pipeline/evaluation/results/LOG.md``.)

Words that tell nothing alone may ask for a concept together: Ring-A-Bell's search finds such texts. ``Context`` reads
the prompt as the denoiser is told it: what the embeddings from the end of the text on, where a causal encoder sums up,
have beyond the empty text's, against the concept's word beyond common things (``jobs/ablate_gates.py`` measures it). In
scenes of several things what is asked for scores low, so each word is asked too.

Every word is encoded alone, as a batch of one, and remembered: its score does not depend on what came before.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Mention, Naming, naming
from pipeline.erasure.tokens import end_of_text, replace_spans
from pipeline.models.family import Family

EVERYDAY = (
    "house", "tree", "car", "person", "photo", "beach", "snow", "night", "bus", "apple", "picture", "room", "water",
    "city", "street", "food", "man", "woman", "day", "color",
)  # fmt: skip
# Things, so that what any thing has in common counts nothing: against EVERYDAY, of which the diorama knows a quarter,
# its objects come near each other by .35.
THINGS = (
    "dog", "horse", "bird", "fish", "car", "bus", "bicycle", "airplane", "apple", "banana", "pizza", "cake", "tree",
    "rose", "house", "church", "guitar", "ball", "cup", "moon",
)  # fmt: skip
_WORD = re.compile(r"[^\W\d_]{3,}")  # shorter ones are articles and prepositions


@dataclass(frozen=True)
class Hit:
    """Characters ``start:stop`` of a prompt that bring a concept into play, and how surely (``score`` in 0..1).

    ``plural`` says that they are a listed word in the plural, ``meant`` that they mean the concept and do not only
    imply it.
    """

    concept: Concept
    start: int
    stop: int
    score: float
    plural: bool = False
    meant: bool = False


class Context:
    """Scores prompts as a whole, from their embeddings. For encoders that read from the first word to the last."""

    def __init__(self, family: Family, concepts: Sequence[Concept]):
        self.stream = family.streams[0]
        self.family = family
        self.empty = family.encode([""]).embeds[0].float()  # (T, D)
        self.things = {word: self._end(word) for word in THINGS}
        self._naming = Naming(concepts)
        kept = [[w for w in (*c.preserve, c.anchor) if w and not self._naming.is_word(w)] for c in concepts]
        self.sizes = [(len(c.words), len(words)) for c, words in zip(concepts, kept, strict=True)]
        asked = [(w, c) for c, words in zip(concepts, kept, strict=True) for w in (*c.words, *words)]
        self.directions = torch.stack([self.direction(word, concept) for word, concept in asked])  # (W, D)

    def scores(self, text: str, embeds: Tensor, end: int | None = None) -> list[float]:
        """Return, per concept, how near *text* comes as it was encoded, ``embeds (T, D)``: a cosine in -1..1. *end* is
        the row of its end, where *text* alone does not tell.

        It is that of the concept's nearest word, less what a listed neighbour comes nearer by. Where *text* has
        exceptions to a concept, it is that of the text without them, as nothing tells what they bring.
        """
        scores = self._near(embeds, end_of_text(self.stream, text) if end is None else end)
        exceptions = self._naming.exceptions(text)
        for concept in {mention.concept for mention in exceptions}:
            spans = [(mention.start, mention.stop) for mention in exceptions if mention.concept == concept]
            rest, _ = replace_spans(text, spans, [""] * len(spans))
            k = self._naming.concepts.index(concept)
            scores[k] = self._near(self.family.encode([rest]).embeds[0], end_of_text(self.stream, rest))[k]
        return scores

    def _near(self, embeds: Tensor, end: int) -> list[float]:
        summary = (embeds.float() - self.empty)[end : self.stream.offset + self.stream.length].mean(0)
        cosines = (self.directions @ torch.nn.functional.normalize(summary, dim=0)).tolist()
        scores, at = [], 0
        for words, neighbours in self.sizes:
            own, others = cosines[at : at + words], cosines[at + words : at + words + neighbours]
            near = max(own)
            scores.append(near - max([0.0, *(rival - near for rival in others)]))
            at += words + neighbours
        return scores

    def direction(self, word: str, concept: Concept) -> Tensor:
        """Return what *word* has beyond common things, other than *concept* itself: ``(D,)``, of length 1."""
        own = naming(concept)
        things = torch.stack([end for thing, end in self.things.items() if not own.is_word(thing)])
        return torch.nn.functional.normalize(self._end(word) - things.mean(0), dim=0)

    def _end(self, word: str) -> Tensor:
        text = f"a {word}"
        return self.family.encode([text]).embeds[0, end_of_text(self.stream, text)].float()


class _Scored(NamedTuple):
    """Characters ``start:stop`` of a text and their scores for each concept."""

    start: int
    stop: int
    scores: tuple[float, ...]
    plural: bool = False
    implied: bool = False


class TextGate:
    """Scores prompts against concepts."""

    def __init__(self, family: Family, concepts: Sequence[Concept]):
        self.family = family
        self.concepts = tuple(concepts)
        self._naming = Naming(concepts, proven=True)
        self._implied = [Naming.of_words(concept.implied) for concept in concepts]
        self._ignored = [Naming.of_words(concept.ignore) for concept in concepts]
        self._scores: dict[str, tuple[float, ...]] = {}
        self._mean = torch.stack([self._embed(word) for word in EVERYDAY]).mean(0)
        self._words = [torch.stack([self._direction(word) for word in concept.words]) for concept in concepts]
        kept = [[w for w in (*c.preserve, c.anchor) if w and not self._naming.names(w)] for c in concepts]
        self._neighbours = [torch.stack([self._direction(w) for w in words]) if words else None for words in kept]

    def hits(self, text: str, threshold: float, means: float) -> list[Hit]:
        """Return what in *text* scores at least *threshold*, in the order of the text, for each word the nearest first.

        A word of at least *means* means the concept it comes nearest to, and no other; below, it may imply several.
        """
        hits = []
        for found in self._scored(text):
            near = [
                Hit(c, found.start, found.stop, score, found.plural, score >= means and not found.implied)
                for c, score in zip(self.concepts, found.scores, strict=True)
                if score >= threshold
            ]
            near.sort(key=lambda hit: -hit.score)
            hits += near[:1] if near and near[0].meant else near
        return sorted(hits, key=lambda hit: hit.start)

    def scores(self, text: str) -> list[float]:
        """Return, per concept, the score of the nearest word of *text*, 0..1."""
        words = [found.scores for found in self._scored(text)]
        return [max([0.0, *(scores[i] for scores in words)]) for i in range(len(self.concepts))]

    def _scored(self, text: str) -> Iterator[_Scored]:
        """Yield the words of *text* and their scores for each concept: listed and proved ones, then all others.

        A word that is said to imply a concept scores 1 for it and goes on to imply it, whatever it scores; to others it
        comes as near as any word. Within an
        exception to a concept, and in a word that it ignores, nothing comes near it.
        """
        listed = self._naming.mentions(text)
        for mention in listed:
            scores = tuple(float(c is mention.concept) for c in self.concepts)
            yield _Scored(mention.start, mention.stop, scores, mention.plural)
        exceptions = [(mention.concept, mention) for mention in self._naming.exceptions(text)]
        exceptions += [
            (c, m) for c, naming in zip(self.concepts, self._ignored, strict=True) for m in naming.mentions(text)
        ]
        implied = [
            [
                m
                for m in naming.mentions(text)
                if not any(c is k and _overlap((m.start, m.stop), e) for k, e in exceptions)
            ]
            for c, naming in zip(self.concepts, self._implied, strict=True)
        ]
        for span in sorted({(m.start, m.stop) for mentions in implied for m in mentions}):
            if not any(_overlap(span, mention) for mention in listed):
                scores = tuple(float(any((m.start, m.stop) == span for m in mentions)) for mentions in implied)
                yield _Scored(*span, scores, implied=True)
        exceptions += [(c, m) for c, mentions in zip(self.concepts, implied, strict=True) for m in mentions]  # told
        for match in _WORD.finditer(text):
            if any(_overlap(match.span(), mention) for mention in listed):
                continue
            scores = self._score(match[0].lower())
            excepted = [concept for concept, mention in exceptions if _overlap(match.span(), mention)]
            if excepted:
                scores = tuple(0.0 if c in excepted else s for c, s in zip(self.concepts, scores, strict=True))
            yield _Scored(match.start(), match.end(), scores)

    def _score(self, word: str) -> tuple[float, ...]:
        if word not in self._scores:
            direction = self._direction(word)
            scores = []
            for own, neighbours in zip(self._words, self._neighbours, strict=True):
                near = (own @ direction).max().item()
                rival = -1.0 if neighbours is None else (neighbours @ direction).max().item()
                scores.append(min(1.0, max(0.0, near - max(0.0, rival - near))))
            self._scores[word] = tuple(scores)
        return self._scores[word]

    def _embed(self, word: str) -> Tensor:
        return self.family.summary(f"a {word}").float()

    def _direction(self, word: str) -> Tensor:
        return torch.nn.functional.normalize(self._embed(word) - self._mean, dim=0)


def _overlap(span: tuple[int, int], mention: Mention) -> bool:
    return span[0] < mention.stop and span[1] > mention.start
