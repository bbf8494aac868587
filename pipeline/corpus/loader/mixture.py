"""Several corpora as one source, mixed by weight, in an order that is arithmetic as a corpus's own."""

import hashlib
import json
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from pipeline.corpus.loader.arguments import expect_count, shown
from pipeline.corpus.loader.collate import collate
from pipeline.corpus.loader.corpus import Corpus, numbered
from pipeline.corpus.loader.order import Mixed, Rows, wrapped
from pipeline.errors import ConfigError

STRETCH = 1000  # positions, of which each corpus has its share exactly


class Mixture(Dataset[dict[str, Any]]):
    """Corpora and their weights: ``Mixture([(a, 0.7), (b, 0.3)])``; weights are whole thousandths of their sum.

    An epoch has *length* samples, by default as many as the corpora have together. Each corpus gives its own epochs
    one after the other, as fast as its weight asks: none of its samples comes again before all have come, and an epoch
    of the mixture goes on where the last one ended. By number it is its corpora one behind the other.
    """

    def __init__(self, parts: Sequence[tuple[Corpus, float]], length: int | None = None):
        if not isinstance(parts, Sequence) or not parts:
            raise ConfigError(
                f"a mixture is of {shown(parts)}; expected a list of (Corpus, weight), of one corpus at least"
            )
        for one in parts:
            if not (isinstance(one, Sequence) and len(one) == 2 and isinstance(one[0], Corpus)):
                raise ConfigError(f"a mixture is of {shown(one)}; expected (Corpus, weight) for each part")
        self.parts = [part for part, _ in parts]
        first = self.parts[0]
        self.columns, self.decode = first.columns, first.decode
        for part in self.parts[1:]:
            if part.columns != self.columns:
                raise ConfigError(
                    f"{part.url} has the columns {', '.join(part.columns)} and {first.url} has "
                    f"{', '.join(self.columns)}; expected the same in a mixture"
                )
            if part.decode != self.decode:
                raise ConfigError(
                    f"{part.url} is read with decode={part.decode!r} and {first.url} with {self.decode!r}; expected "
                    "the same in a mixture"
                )
        self.quotas = _quotas([weight for _, weight in parts])
        self._rows = np.cumsum([0, *(len(part) for part in self.parts)])
        self._blocks = np.cumsum([0, *(len(part.index.blocks) for part in self.parts)])
        if length is not None:
            expect_count("length", length, 1)
        self.length = len(self) if length is None else length
        facts = [[part.fingerprint for part in self.parts], self.quotas.tolist(), self.length]
        self.fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    @property
    def remote(self) -> bool:
        return any(part.remote for part in self.parts)

    @property
    def skipped(self) -> int:
        return sum(part.skipped for part in self.parts)

    def __len__(self) -> int:
        return int(self._rows[-1])

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([operator.index(row)])[0]

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """See ``Corpus.__getitems__``."""
        if isinstance(rows, Rows):
            self.prefetch(rows.ahead)
        return self.read(numbered(rows, len(self)))

    def read(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return the samples of *rows* (int64)."""
        samples: list[dict[str, Any]] = [{}] * len(rows)
        owners = np.searchsorted(self._rows, rows, side="right") - 1
        for number in np.unique(owners):
            at = np.flatnonzero(owners == number)
            for place, sample in zip(at, self.parts[number].read(rows[at] - self._rows[number]), strict=True):
                samples[place] = sample
        return samples

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        return collate(self.read(rows))

    def prefetch(self, blocks: Sequence[int] | np.ndarray) -> None:
        numbers = np.asarray(blocks, np.int64)
        owners = np.searchsorted(self._blocks, numbers, side="right") - 1
        for number in np.unique(owners):
            self.parts[number].prefetch(numbers[owners == number] - self._blocks[number])

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return heights and widths of the pictures, in pixels, by number."""
        heights, widths = zip(*(part.sizes() for part in self.parts), strict=True)
        return np.concatenate(heights), np.concatenate(widths)

    def order(self, seed: int, shuffle: bool) -> "_Mixing":
        """Return the order that *seed* names; without *shuffle* each corpus gives its rows as they are numbered."""
        orders = [part.order(seed, shuffle) for part in self.parts]
        return _Mixing(orders, self.quotas, self.length, self._rows[:-1], self._blocks[:-1])


class _Mixing(Mixed):
    """The orders of the parts, interleaved by one pattern of STRETCH positions that is repeated."""

    def __init__(self, orders: Sequence[Mixed], quotas: np.ndarray, length: int, rows: np.ndarray, blocks: np.ndarray):
        self.length, self._orders, self._quotas = length, orders, quotas
        self._first_rows, self._first_blocks = rows, blocks
        due = np.concatenate([(np.arange(quota) + 0.5) / quota for quota in quotas])
        self._pattern = np.repeat(np.arange(len(quotas)), quotas)[np.argsort(due, kind="stable")]
        # How many of each part are among the first positions of the pattern: (STRETCH + 1, parts).
        self._before = np.cumsum(np.eye(len(quotas), dtype=np.int64)[self._pattern], 0)
        self._before = np.concatenate([np.zeros((1, len(quotas)), np.int64), self._before])

    def _given(self, epoch: int, position: int) -> np.ndarray:
        """Return how many samples each part has given since the beginning of epoch 0."""
        return np.asarray(epoch * self._within(self.length) + self._within(position))

    def _within(self, position: int) -> np.ndarray:
        stretch, rest = divmod(position, STRETCH)
        return np.asarray(stretch * self._quotas + self._before[rest])

    def take(self, epoch: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        owners = self._pattern[np.arange(start, stop) % STRETCH]
        rows, lanes = np.empty((2, stop - start), np.int64)
        begin, end = self._given(epoch, start), self._given(epoch, stop)
        for number, order in enumerate(self._orders):
            at, taken = np.flatnonzero(owners == number), 0
            count = int(begin[number])
            for first, last in wrapped(count, int(end[number]), order.length):
                here = at[taken : taken + last - first]
                rows[here], lanes[here] = order.take((count + taken) // order.length, first, last)
                taken += last - first
            rows[at] += self._first_rows[number]
        return rows, lanes

    # A part goes on to its next epoch whether or not the mixture does.

    def ahead(self, epoch: int, start: int, stop: int, rank: int, world: int, goes_on: bool = False) -> np.ndarray:
        begin, end = self._given(epoch, start), self._given(epoch, stop)
        found = [np.empty(0, np.int64)]
        for number, order in enumerate(self._orders):
            own = int(begin[number]) // order.length
            for first, last in wrapped(int(begin[number]), int(end[number]), order.length):
                found.append(order.ahead(own, first, last, rank, world, goes_on=True) + self._first_blocks[number])
                own += 1
        return np.concatenate(found)

    def opening(self, epoch: int, start: int, step: int, rank: int, world: int, goes_on: bool = False) -> np.ndarray:
        begin, end = self._given(epoch, start), self._given(epoch, start + step)
        found = [np.empty(0, np.int64)]
        for number, order in enumerate(self._orders):
            own, first = divmod(int(begin[number]), order.length)
            each = max(1, int(end[number] - begin[number]))
            found.append(order.opening(own, first, each, rank, world, goes_on=True) + self._first_blocks[number])
        return np.concatenate(found)


def _quotas(weights: Sequence[float]) -> np.ndarray:
    """Return how many of STRETCH positions each weight has, by largest remainder. Raises ``ConfigError``."""
    for weight in weights:
        if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not math.isfinite(weight):
            raise ConfigError(f"a weight is {shown(weight)}; expected a number")
    total = sum(weights)
    for weight in weights:
        if not weight > 0 or weight / total < 1 / STRETCH:
            raise ConfigError(f"a weight is {weight} of {total:g}; expected a thousandth at least")
    exact = np.array(weights, float) / total * STRETCH
    quotas = np.floor(exact).astype(np.int64)
    quotas[np.argsort(quotas - exact, kind="stable")[: STRETCH - quotas.sum()]] += 1
    return quotas
