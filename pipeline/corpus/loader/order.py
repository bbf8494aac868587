"""In which order samples are given: one global order for each seed and epoch, and what of it a rank gets in a step.

Position ``p`` of an epoch is a row, by arithmetic on (seed, epoch) alone: neither ranks nor workers nor batches enter.
Step by step all ranks together take the next ``world * batch`` positions, so what was received is always the first part
of the order, and one number says how far; other ranks, workers and batches go on from there.

The shuffle is of two levels: the blocks of the index (see there) are permuted, and as many of them as make a *chapter*
have their rows mixed. Reads of some time are of one chapter's blocks, so storage is asked for whole blocks. A chapter's
blocks are dealt to LANES, position after position a lane, and the positions of a step to ranks by lane: ranks far from
each other (on other machines) read different blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from pipeline.errors import ConfigError
from pipeline.prompts.seeds import hashed

LANES = 8
CHAPTER_BLOCKS = 64  # at least
CHAPTER_ROWS = 4096  # at least, as far as CHAPTER_BYTES allows
CHAPTER_BYTES = 512 << 20  # at most, unless 64 blocks are more
LEAD = 32  # blocks that are announced before what is read now: as long as they come, none of it need be waited for


class Rows(list[int]):
    """The rows of a batch, as a DataLoader hands them to a worker, and the blocks that it is to announce with them."""

    ahead: Sequence[int] = ()


@dataclass(frozen=True)
class Share:
    """What one rank reads in one step: ``rows`` at ``positions`` of the epoch, and blocks that will be wanted later."""

    epoch: int
    rows: np.ndarray
    positions: np.ndarray
    ahead: np.ndarray
    size: tuple[int, int] | None = None  # height and width, where batches are of one size


class Order(Protocol):
    """An order of rows in each epoch. ``buckets`` is None where each position is a row of its own, else what decides
    which rows stand together, as plain JSON."""

    buckets: list[Any] | None

    def length_in(self, epoch: int) -> int:
        """Return the number of positions of *epoch*."""

    def share(self, epoch: int, start: int, stop: int, rank: int, world: int) -> Share:
        """Return what *rank* of *world* gets of the positions *start* to *stop*, whose number they share equally.

        Positions behind the end are those of the beginning once more.
        """

    def opening(self, epoch: int, start: int, step: int, rank: int, world: int) -> np.ndarray:
        """Return the blocks (int64) that *rank* wants of a pass that begins at *start*, in steps of *step* positions,
        and that no share announces, in the order in which they are wanted."""


class Mixed:
    """Orders in which each position is a row of its own, ``length`` of them in each epoch; ``share`` deals a step's
    positions to ranks by lane."""

    length: int
    buckets: list[Any] | None = None

    def length_in(self, epoch: int) -> int:
        return self.length

    def take(self, epoch: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and lanes (int64) of positions within the epoch."""
        raise NotImplementedError

    def ahead(self, epoch: int, start: int, stop: int, rank: int, world: int, goes_on: bool = False) -> np.ndarray:
        """Return the blocks (int64) that *rank* may have read while these positions are given, in the order in which
        it wants them; *goes_on* where the next epoch is sure to follow."""
        raise NotImplementedError

    def opening(self, epoch: int, start: int, step: int, rank: int, world: int, goes_on: bool = False) -> np.ndarray:
        """See ``Order``."""
        raise NotImplementedError

    def share(self, epoch: int, start: int, stop: int, rank: int, world: int) -> Share:
        parts = [self.take(epoch, a, b) for a, b in wrapped(start, stop, self.length)]
        rows, lanes = (np.concatenate(part) for part in zip(*parts, strict=True))
        count = (stop - start) // world
        mine = np.argsort(lanes, kind="stable")[rank * count : (rank + 1) * count]
        mine.sort()
        return Share(epoch, rows[mine], start + mine, self.ahead(epoch, start, stop, rank, world))


def wrapped(start: int, stop: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of a range of positions that lie within one round of *length*."""
    while start < stop:
        first = start % length
        last = min(first + stop - start, length)
        yield first, last
        start += last - first


class Sequential(Mixed):
    """The rows as they are numbered; the blocks begin with the rows *blocks*."""

    def __init__(self, blocks: np.ndarray, length: int):
        self.length, self._blocks = length, blocks

    def take(self, epoch: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(start, stop)
        return rows, rows

    def ahead(self, epoch: int, start: int, stop: int, rank: int, world: int, goes_on: bool = False) -> np.ndarray:
        return self._read(start + self._steps(stop - start) * (stop - start), stop - start, 1, rank, world)

    def opening(self, epoch: int, start: int, step: int, rank: int, world: int, goes_on: bool = False) -> np.ndarray:
        return self._read(start, step, self._steps(step), rank, world)

    def _steps(self, step: int) -> int:
        """Return how many steps take LEAD blocks."""
        return -(-LEAD * self.length // (len(self._blocks) * step))

    def _read(self, start: int, step: int, steps: int, rank: int, world: int) -> np.ndarray:
        """Return the blocks of what *rank* reads in so many steps; of steps that are no multiple of *world*, more."""
        first, last = step * rank // world, -(-step * (rank + 1) // world)
        rows = (start + step * np.arange(steps)[:, None] + np.arange(first, last)).reshape(-1)
        return np.unique(np.searchsorted(self._blocks, rows[rows < self.length], side="right") - 1)


class Shuffled(Mixed):
    """The two-level shuffle that *seed* names of rows whose blocks begin with the rows *blocks*; *block_bytes* is the
    mean size of a block."""

    def __init__(self, blocks: np.ndarray, length: int, block_bytes: float, seed: int):
        self._made_of = (blocks, length, block_bytes, seed)
        self.length, self._blocks, self._seed = length, blocks, seed
        most = max(CHAPTER_BLOCKS, int(CHAPTER_BYTES // max(1.0, block_bytes)))
        self._chapter = min(max(CHAPTER_BLOCKS, -(-CHAPTER_ROWS * len(blocks) // max(1, length))), most)
        self._epoch = lru_cache(maxsize=2)(self._blocks_of)
        self._mixed = lru_cache(maxsize=4)(self._rows_of)
        self._first = lru_cache(maxsize=4)(self._first_used)

    def __reduce__(self) -> Any:
        return Shuffled, self._made_of  # without what it remembers, which cannot be pickled

    def take(self, epoch: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        _, starts = self._epoch(epoch)
        rows, lanes = [], []
        for chapter in range(int(np.searchsorted(starts, start, side="right")) - 1, len(starts) - 1):
            first, last = max(start, int(starts[chapter])), min(stop, int(starts[chapter + 1]))
            if first >= last:
                break
            at = np.arange(first, last) - starts[chapter]
            rows.append(self._mixed(epoch, chapter)[at])
            lanes.append(at % LANES)
        return np.concatenate(rows), np.concatenate(lanes)

    def ahead(self, epoch: int, start: int, stop: int, rank: int, world: int, goes_on: bool = False) -> np.ndarray:
        found = [np.empty(0, np.int64)]
        _, starts = self._epoch(epoch)
        stop = min(stop, self.length)
        for chapter in range(int(np.searchsorted(starts, start, side="right")) - 1, len(starts) - 1):
            begin, end = int(starts[chapter]), int(starts[chapter + 1])
            if begin >= stop:
                break
            following = self._following(epoch, chapter, rank, world, goes_on)
            done, will = (
                _announced(min(max(at, begin), end) - begin, end - begin, len(following)) for at in (start, stop)
            )
            found.append(following[done:will])
        return np.concatenate(found)

    def opening(self, epoch: int, start: int, step: int, rank: int, world: int, goes_on: bool = False) -> np.ndarray:
        _, starts = self._epoch(epoch)
        chapter = int(np.searchsorted(starts, start, side="right")) - 1
        if chapter >= len(starts) - 1:
            return np.empty(0, np.int64)
        begin, end = int(starts[chapter]), int(starts[chapter + 1])
        wanted = self._own(epoch, chapter, rank, world)
        left = wanted[np.isin(wanted, self._block_of(self._mixed(epoch, chapter)[start - begin :]))]
        following = self._following(epoch, chapter, rank, world, goes_on)
        return np.append(left, following[: _announced(start - begin, end - begin, len(following))])

    def _following(self, epoch: int, chapter: int, rank: int, world: int, goes_on: bool) -> np.ndarray:
        """Return the blocks of *rank* in the next chapter."""
        if goes_on and chapter + 2 == len(self._epoch(epoch)[1]):
            return self._own(epoch + 1, 0, rank, world)
        return self._own(epoch, chapter + 1, rank, world)

    def _own(self, epoch: int, chapter: int, rank: int, world: int) -> np.ndarray:
        """Return those blocks of a chapter that *rank* reads, for the most part, in the order of their first rows."""
        blocks = self._epoch(epoch)[0][chapter * self._chapter : (chapter + 1) * self._chapter]
        own = blocks[len(blocks) * rank // world : len(blocks) * (rank + 1) // world]
        first = self._first(epoch, chapter)
        return first[np.isin(first, own)]

    def _first_used(self, epoch: int, chapter: int) -> np.ndarray:
        """Return the blocks of a chapter in the order of their first rows."""
        blocks, first = np.unique(self._block_of(self._mixed(epoch, chapter)), return_index=True)
        return np.asarray(blocks[np.argsort(first)])

    def _block_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._blocks, rows, side="right") - 1

    def _blocks_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the blocks in the order of this epoch, and the positions at which chapters begin, with the end."""
        blocks = permuted(np.arange(len(self._blocks)), hashed("loader blocks", self._seed, epoch))
        sizes = np.diff(self._blocks, append=self.length)[blocks]
        ends = np.append(np.cumsum(sizes)[self._chapter - 1 :: self._chapter], self.length)
        return blocks, np.unique(np.append(0, ends))

    def _rows_of(self, epoch: int, chapter: int) -> np.ndarray:
        blocks = self._epoch(epoch)[0][chapter * self._chapter : (chapter + 1) * self._chapter]
        firsts, sizes = self._blocks[blocks], np.diff(self._blocks, append=self.length)[blocks]
        rows = np.repeat(firsts - np.append(0, np.cumsum(sizes)[:-1]), sizes) + np.arange(sizes.sum())
        key = hashed("loader rows", self._seed, epoch, chapter)
        even = len(rows) // LANES
        lanes = [permuted(lane, key) for lane in rows[: even * LANES].reshape(LANES, even)]
        return np.append(np.stack(lanes, 1).reshape(-1), permuted(rows[even * LANES :], key))


def _announced(done: int, length: int, blocks: int) -> int:
    """Return how many of the *blocks* of the next chapter are announced when *done* positions of this one are given."""
    return min(blocks, LEAD + blocks * done // length) if done else 0


def permuted(values: np.ndarray, key: int) -> np.ndarray:
    """Return distinct *values* (integers) in the order that *key*, of 63 bits, names; the same in every version."""
    x = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    for constant in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):  # Murmur3's 64-bit finaliser
        x = (x ^ (x >> np.uint64(33))) * np.uint64(constant)
    return values[np.argsort(x ^ (x >> np.uint64(33)), kind="stable")]


@dataclass(frozen=True)
class Rounds:
    """How an epoch of ``length`` positions is divided into steps of equal batches over ranks and workers."""

    length: int
    batch: int
    world: int
    workers: int  # of each rank, that read
    pad: bool

    @property
    def step(self) -> int:
        """The positions that all ranks take at once."""
        return self.world * self.batch

    def steps(self, position: int) -> int:
        """Return the steps from *position* to the end; from the beginning they are a multiple of the workers.

        What is left over, fewer than world x workers x batch positions, is dropped, or padded from the beginning.
        From a position that these numbers lead to the end is the same as from the beginning. Raises ``ConfigError``
        where nothing of an epoch is left.
        """
        workers = max(1, self.workers)
        unit, begin = self.step * workers, position % self.step
        rounds = max(0, self.length - begin + (unit - 1 if self.pad else 0)) // unit
        if not rounds and not position:
            raise ConfigError(
                f"{self.length} samples are fewer than one batch of {self.batch} for each of {workers} workers of "
                f"{self.world} ranks; lower batch_size or workers, or pad the remainder"
            )
        return max(0, begin + rounds * unit - position) // self.step
