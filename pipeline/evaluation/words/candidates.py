"""Which words of a vocabulary may mean a concept: those that come nearest to it for the model's own text encoder.

An encoder's score decides nothing: no threshold parts a concept's kinds from its neighbours. But nearly all kinds are
among the words that come nearest, so these are what is worth drawing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.erasure.gate.standard import Standard
from pipeline.models.family import Family
from pipeline.terminal import live

SHARE = 0.03  # of the vocabulary, nearest to each concept
CHUNK = 64  # words encoded at once


def encoded(family: Family, words: Sequence[str]) -> Tensor:
    """Return what *family* makes of "a WORD" for each of *words*: ``(words, D)``, float32, on the CPU."""
    texts = [f"a {word}" for word in words]
    chunks = [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]
    bar = tqdm(chunks, desc="encode the vocabulary", disable=not live() or len(chunks) < 4, leave=False)
    return torch.cat([family.summaries(chunk).float().cpu() for chunk in bar])


def nearness(words: Tensor, concepts: Sequence[Tensor], basis: Tensor) -> Tensor:
    """Return the cosine of each word with the nearest of each concept's listed words, ``(words, concepts)``.

    *words* is ``(N, D)``, each of *concepts* ``(its words, D)``, *basis* ``(M, D)`` the vocabulary.
    """
    standard = Standard(basis)
    own = standard.of(words)
    return torch.stack([(own @ standard.of(concept).T).amax(1) for concept in concepts], 1)


def nearest(scores: Tensor, share: float = SHARE) -> list[int]:
    """Return the words that are among the *share* that comes nearest to some concept, the nearest of all first.

    *scores* is ``(words, concepts)``.
    """
    number = max(1, round(share * len(scores)))
    among = torch.zeros(len(scores), dtype=torch.bool)
    for column in scores.T:
        among[column.topk(min(number, len(column))).indices] = True
    best = scores.amax(1)
    return [i for i in best.argsort(descending=True, stable=True).tolist() if among[i]]
