"""WHEN: how near the words of a prompt come to a concept, in the text encoder's own eyes. Costs no denoiser forward.

A listed word counts 1. Any other word w counts cos(E(w) - m, E(c) - m), E being the embedding of "a w" at its
end-of-text token (or, where the architecture has one, its pooled vector) and m the mean of E over everyday words,
without which all CLIP embeddings look alike (cosines of .7 and more). A word that comes nearer to a listed neighbour
than to the concept counts 0. On the diorama unlisted synonyms score .93 to .98, words for scenes that imply the concept
.65 to .97, neighbours at most .5.

Every word is encoded alone, as a batch of one, and remembered: its score does not depend on what came before.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.erasure.concept import Concept
from pipeline.erasure.tokens import word_pattern
from pipeline.models.family import Family

EVERYDAY = (
    "house", "tree", "car", "person", "photo", "beach", "snow", "night", "bus", "apple", "picture", "room", "water",
    "city", "street", "food", "man", "woman", "day", "color",
)  # fmt: skip
_WORD = re.compile(r"[^\W\d_]{3,}")  # shorter ones are articles and prepositions


@dataclass(frozen=True)
class Hit:
    """Characters ``start:stop`` of a prompt that bring a concept into play, and how surely (``score`` in 0..1)."""

    concept: Concept
    start: int
    stop: int
    score: float


class TextGate:
    """Scores prompts against concepts."""

    def __init__(self, family: Family, concepts: Sequence[Concept]):
        self.family = family
        self.concepts = tuple(concepts)
        self._patterns = [word_pattern(concept.words) for concept in concepts]
        self._scores: dict[str, tuple[float, ...]] = {}
        self._mean = torch.stack([self._embed(word) for word in EVERYDAY]).mean(0)
        self._words = [torch.stack([self._direction(word) for word in concept.words]) for concept in concepts]
        erased = word_pattern([word for concept in concepts for word in concept.words])
        kept = [[w for w in (*c.preserve, c.anchor) if w and not erased.search(w)] for c in concepts]
        self._neighbours = [torch.stack([self._direction(w) for w in words]) if words else None for words in kept]

    def hits(self, text: str, threshold: float) -> list[Hit]:
        """Return what in *text* scores at least *threshold*, at most one hit a word, in the order of the text."""
        hits = []
        taken: list[tuple[int, int]] = []
        for concept, pattern in zip(self.concepts, self._patterns, strict=True):
            for match in pattern.finditer(text):
                hits.append(Hit(concept, match.start(), match.end(), 1.0))
                taken.append(match.span())
        for match in _WORD.finditer(text):
            if any(match.start() < stop and match.end() > start for start, stop in taken):
                continue
            scores = self._score(match[0].lower())
            best = max(range(len(scores)), key=scores.__getitem__)
            if scores[best] >= threshold:
                hits.append(Hit(self.concepts[best], match.start(), match.end(), scores[best]))
        return sorted(hits, key=lambda hit: hit.start)

    def scores(self, text: str) -> list[float]:
        """Return, per concept, the score of the nearest word of *text*, 0..1."""
        words = [self._score(match[0].lower()) for match in _WORD.finditer(text)]
        return [
            1.0 if pattern.search(text) else max([0.0, *(scores[i] for scores in words)])
            for i, pattern in enumerate(self._patterns)
        ]

    def _score(self, word: str) -> tuple[float, ...]:
        if word not in self._scores:
            direction = self._direction(word)
            scores = []
            for own, neighbours in zip(self._words, self._neighbours, strict=True):
                near = (own @ direction).max().item()
                rival = -1.0 if neighbours is None else (neighbours @ direction).max().item()
                scores.append(min(1.0, max(0.0, near)) if near > rival else 0.0)
            self._scores[word] = tuple(scores)
        return self._scores[word]

    def _embed(self, word: str) -> Tensor:
        return self.family.summary(f"a {word}").float()

    def _direction(self, word: str) -> Tensor:
        return torch.nn.functional.normalize(self._embed(word) - self._mean, dim=0)
