"""Seeds and the shuffle: pure arithmetic of the run's seed, the same on every machine and in every version.

Hashes are blake2b of decimal numbers, not a library's random generator, whose stream may change between versions.
"""

import hashlib
from functools import lru_cache

ROUNDS = 4  # of the Feistel network: enough to look random, which is all that a shuffle of prompts needs


def hashed(*parts: object) -> int:
    """Return 63 bits, 0 to 2**63 - 1, that depend on all *parts* and their order."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def sample_seed(run_seed: int, prompt_index: int, repetition: int, row_seed: int | None = None) -> int:
    """Return the seed of one picture: H(run seed, prompt index, repetition).

    A row's own seed is used as it is for the first picture of its prompt and hashed with the repetition for the rest.
    """
    if row_seed is None:
        return hashed("sample", run_seed, prompt_index, repetition)
    return row_seed if repetition == 0 else hashed("row", row_seed, repetition)


def permuted(index: int, length: int, *key: object) -> int:
    """Return where *index* goes in the permutation of ``range(length)`` that *key* names; memory is constant.

    A Feistel network over the next power of 4, walked until it falls inside the range (twice on average, at most 4).
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = _round_keys(*key)
    while True:
        left, right = index >> half, index & mask
        for round_key in keys:
            left, right = right, left ^ (_mixed(right ^ round_key) & mask)
        index = (left << half) | right
        if index < length:
            return index


def _mixed(x: int) -> int:
    """Murmur3's 64-bit finaliser: every bit of *x* reaches every bit of the result."""
    x = ((x ^ (x >> 33)) * 0xFF51AFD7ED558CCD) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 33)


@lru_cache(maxsize=64)
def _round_keys(*key: object) -> tuple[int, ...]:
    return tuple(hashed("round", i, *key) for i in range(ROUNDS))
