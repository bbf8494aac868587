"""Aspect buckets: batches of one size each, of pictures whose shape is near it, in equal numbers on all ranks."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.corpus.loader.arguments import shown
from pipeline.corpus.loader.order import Mixed, Share
from pipeline.errors import ConfigError

Size = tuple[int, int]


def nearest_buckets(heights: np.ndarray, widths: np.ndarray, sizes: Sequence[Size]) -> np.ndarray:
    """Return for each picture the place in *sizes* (height, width) of the one whose shape is nearest, by the logarithm
    of its ratio; of equal shapes, the one whose area is."""
    height, width = (np.log(np.asarray(sides, float))[:, None] for sides in (heights, widths))  # (pictures, 1)
    tall, wide = np.log(np.array(sizes, float)).T[:, None]  # (1, sizes) each
    # Shapes are compared to a ten-thousandth, so that 512x768 and 1024x1536 are one.
    shape = np.round(np.abs(height - width - tall + wide), 4)
    area = np.abs(height + width - tall - wide)
    return np.asarray(np.argmin(shape * 1e6 + area, 1))


class Bucketed:
    """An order of batches: the samples of *order* that fall into one bucket, in their order, *batch* by *batch*.

    A batch stands where its last sample did. Of each bucket fewer than *batch* samples an epoch are left over: dropped,
    or with *pad* filled up from the bucket's beginning. Of a mixture each epoch has other samples, and may have a few
    batches more or less; one without any is refused with ``ConfigError``. The order of an epoch is held: 8 bytes a row,
    in the training process alone.
    """

    def __init__(
        self, order: Mixed, heights: np.ndarray, widths: np.ndarray, sizes: Sequence[Size], batch: int, pad: bool
    ):
        self._batch, self._order, self._pad = batch, order, pad
        self._sizes = [(int(height), int(width)) for height, width in sizes]
        self.buckets: list[Any] | None = [batch, *map(list, self._sizes)]
        self._bucket = nearest_buckets(heights, widths, sizes).astype(np.int16)
        self._epoch = lru_cache(maxsize=1)(self._batches)

    def length_in(self, epoch: int) -> int:
        return len(self._epoch(epoch)[0])

    def share(self, epoch: int, start: int, stop: int, rank: int, world: int) -> Share:
        at = start + rank * self._batch
        rows, buckets = self._epoch(epoch)
        number = at // self._batch % len(buckets)
        mine = rows[number * self._batch : (number + 1) * self._batch]
        ahead = self._order.ahead(
            epoch, start % self._order.length, start % self._order.length + stop - start, rank, world
        )
        return Share(epoch, mine, np.arange(at, at + self._batch), ahead, self._sizes[buckets[number]])

    def opening(self, epoch: int, start: int, step: int, rank: int, world: int) -> np.ndarray:
        return self._order.opening(epoch, start % self._order.length, step, rank, world)

    def _batches(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of an epoch, batch by batch, and the bucket of each batch."""
        rows, _ = self._order.take(epoch, 0, self._order.length)
        bucket = self._bucket[rows]
        groups, moments, buckets = [], [], []
        for number in range(len(self._sizes)):
            at = np.flatnonzero(bucket == number)
            if self._pad:
                at = np.resize(at, -(-len(at) // self._batch) * self._batch)
            whole = at[: len(at) // self._batch * self._batch].reshape(-1, self._batch)
            groups.append(rows[whole])
            moments.append(whole.max(1, initial=0))
            buckets.append(np.full(len(whole), number))
        if not any(map(len, groups)):
            raise ConfigError(
                f"buckets: of {len(rows)} samples no bucket has a batch of {self._batch}; lower batch_size, or pad the "
                "remainder"
            )
        order = np.argsort(np.concatenate(moments), kind="stable")
        return np.concatenate(groups)[order].reshape(-1), np.concatenate(buckets)[order]


def check_sizes(sizes: Sequence[Size]) -> None:
    """Raise ``ConfigError`` for what are no sizes of buckets."""
    if not isinstance(sizes, Sequence):
        raise ConfigError(f"buckets: {shown(sizes)}; expected a list of sizes (height, width)")
    for size in sizes:
        pair = isinstance(size, Sequence) and len(size) == 2
        if not pair or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
            raise ConfigError(f"buckets: {shown(size)} is no size; expected (height, width) in pixels")
    if not sizes or len(set(map(tuple, sizes))) != len(sizes):
        raise ConfigError("buckets: expected one size at least, each of them once")
