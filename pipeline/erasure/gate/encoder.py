"""A text encoder by what it makes of everyday words: the scale in which words are compared, the same for every encoder.

The ``WORDS`` most frequent are encoded for it, once for each model in a process: texts of a few tokens, in batches.
Some of them the encoder reads whole and so knows; others it reads in pieces, as it does what is misspelt, compounded or
invented. Such words come near all kinds of things, so they are calibrated apart.
"""

from collections.abc import Sequence
from functools import cached_property
from weakref import WeakKeyDictionary, proxy

import torch
from torch import Tensor

from pipeline.concepts.everyday import everyday
from pipeline.concepts.words import plurals
from pipeline.erasure.gate.standard import Standard
from pipeline.models.family import Family

WORDS = 4000
CHUNK = 256  # encoded at a time
FEW = 100  # fewer words that are read whole, or in pieces, are not calibrated apart
# Common things, which every encoder knows.
THINGS = (
    "dog", "horse", "bird", "fish", "car", "bus", "bicycle", "airplane", "apple", "banana", "pizza", "cake", "tree",
    "rose", "house", "church", "guitar", "ball", "cup", "moon",
)  # fmt: skip
PROBE = "a photo of a cat on the beach"

_known: WeakKeyDictionary[Family, "Encoder"] = WeakKeyDictionary()


class Encoder:
    """What the encoder of *family* makes of everyday words.

    ``words`` are these words and ``vectors (N, K)`` what it makes of them, in ``standard``; ``whole (N,)`` says which
    it reads whole. ``same`` is the cosine of a thing's word with its own plural: what it takes for one and the same.
    """

    def __init__(self, family: Family, number: int = WORDS):
        self._family = proxy(family)  # by which it is known: what holds it would never be let go
        self.words = everyday()[:number]
        self.whole = torch.tensor(family.pieces(self.words)) == 1
        if min(self.whole.sum(), (~self.whole).sum()) < FEW:
            self.whole = torch.ones(len(self.words), dtype=torch.bool)
        self._probe = family.summary(PROBE)
        raw = self._encoded(self.words)
        self.standard = Standard(raw)
        self.vectors = self.standard.of(raw)

    @cached_property
    def same(self) -> float:
        return self._alike(THINGS)

    def holds(self) -> bool:
        """Tell whether the encoder is still the one that was measured."""
        return torch.equal(self._family.summary(PROBE), self._probe)

    def of(self, words: Sequence[str]) -> Tensor:
        """Return what it makes of *words*, ``(N, K)``, each of length 1."""
        return self.standard.of(self._encoded(words))

    def reads_whole(self, word: str) -> bool:
        """Tell whether *word* is calibrated as one that is read whole; of a phrase, each of its words."""
        return bool(self.whole.all()) or max(self._family.pieces(word.split() or [word])) == 1

    def _alike(self, words: Sequence[str]) -> float:
        ones, others = self.of(words), self.of([plurals(word)[0] for word in words])
        return float((ones * others).sum(1).median())

    def _encoded(self, words: Sequence[str]) -> Tensor:
        texts = [f"a {word}" for word in words]
        # Of a like length side by side, since a batch is as long as its longest text.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        chunks = [order[i : i + CHUNK] for i in range(0, len(order), CHUNK)]
        encoded = torch.cat([self._family.summaries([texts[i] for i in chunk]).float().cpu() for chunk in chunks])
        return torch.empty_like(encoded).index_copy_(0, torch.tensor(order), encoded)


def encoder_of(family: Family) -> Encoder:
    """Return the encoder of *family*, measured once in a process, and again where its weights have changed since."""
    known = _known.get(family)
    if known is None or not known.holds():
        known = _known[family] = Encoder(family)
    return known
