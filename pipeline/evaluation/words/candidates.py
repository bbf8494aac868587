"""Which words of a vocabulary may mean a concept: those that come nearest to it for the model's own text encoder.

An encoder's score decides nothing: no threshold parts a concept's kinds from its neighbours. But nearly all kinds are
among the words that come nearest, so these are what is worth drawing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.models.family import Family
from pipeline.terminal import live

SHARE = 0.03  # of the vocabulary, nearest to each concept
RIDGE = 4.0  # times the median variance of a direction, added to each: a few directions that rule must not set it
CHUNK = 64  # words encoded at once


def encoded(family: Family, words: Sequence[str]) -> Tensor:
    """Return what *family* makes of "a WORD" for each of *words*: ``(words, D)``, float32, on the CPU."""
    texts = [f"a {word}" for word in words]
    chunks = [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]
    bar = tqdm(chunks, desc="encode the vocabulary", disable=not live() or len(chunks) < 4, leave=False)
    return torch.cat([family.summaries(chunk).float().cpu() for chunk in bar])


def standardised(vectors: Tensor, basis: Tensor) -> Tensor:
    """Return *vectors* ``(N, D)`` as they stand out from *basis* ``(M, D)``, whitened, each of length 1.

    Each dimension is centred and scaled by its spread over the basis first, so that nothing changes where an encoder
    scales its dimensions or adds a vector to all; then the principal directions are scaled by 1/sqrt(variance + ridge),
    since in every encoder a few of them, in which all words are alike or differ by how frequent they are, rule.
    """
    mean, spread = basis.mean(0), basis.std(0, correction=0).clamp_min(1e-12)  # of one word too
    centred = (basis - mean) / spread
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    variance = sizes.square() / len(basis)
    scale = (variance + RIDGE * variance.median()).clamp_min(1e-12).rsqrt()
    return torch.nn.functional.normalize(((vectors - mean) / spread) @ directions.T * scale, dim=-1)


def nearness(words: Tensor, concepts: Sequence[Tensor], basis: Tensor) -> Tensor:
    """Return the cosine of each word with the nearest of each concept's listed words, ``(words, concepts)``.

    *words* is ``(N, D)``, each of *concepts* ``(its words, D)``, *basis* ``(M, D)`` the vocabulary.
    """
    own = standardised(words, basis)
    return torch.stack([(own @ standardised(concept, basis).T).amax(1) for concept in concepts], 1)


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
