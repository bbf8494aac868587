"""What the columns of quality amount to over a corpus: their distributions, copies, and pictures that are nearly alike.

Memory is bounded whatever the corpus's size: values are kept of at most ``DRAWN`` kept pictures, hashes and embeddings
of at most ``COMPARED``, both evenly spread, which are compared each with each. Only that two pictures have one hash is
looked for among all, for 8 bytes a picture and as much again while they are sorted: 160 MB at 10 million.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

HASH = "hash"  # the column, int64, of which a pair's differing bits tell how alike its pictures are
DRAWN = 200_000
COMPARED = 8_192
NEAR_BITS = 6  # of 64: pictures that differ in no more are nearly alike
NEAR_COSINE = 0.95
BLOCK = 512  # pictures that are compared with all at once
BINS = 24
PLACE = ("shard", "key", "offset", "length", "sha256")  # of a picture, for the report to show it
LONGEST = 65  # bits: more than any pair differs in


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Of the *values* of one column, ``counts`` in equal bins from ``low`` to ``high``; ``nulls`` have none."""

    column: str
    counts: Sequence[int]
    low: float
    high: float
    median: float
    values: int
    nulls: int


@dataclass(frozen=True, kw_only=True)
class NearPair:
    """Two of the compared pictures, by their numbers among them, and how alike they are."""

    first: int
    second: int
    likeness: float


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How near the nearest other of each of ``compared`` pictures is, by one column: ``nearest`` (bits that differ, or
    cosines), of which ``near`` are at ``limit`` or nearer; ``pairs``, the nearest first, each picture once."""

    column: str
    compared: int
    near: int
    limit: float
    nearest: np.ndarray
    pairs: Sequence[NearPair]


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Of ``pictures``, ``copies`` have the hash of an earlier one; ``most`` have the same."""

    pictures: int
    copies: int
    most: int


@dataclass
class Spread:
    """Collects from manifests the columns of *schema*, of a corpus of so many *samples*.

    Which kept pictures are looked at goes by their number among all: from 0, in the order of shards and keys.
    """

    schema: pa.Schema
    samples: int
    kept: int = 0
    _values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _hashes: list[np.ndarray] = field(default_factory=list)
    _compared: list[pa.Table] = field(default_factory=list)

    @property
    def numbers(self) -> list[str]:
        """The columns whose distributions are drawn."""
        return [name for name in self.schema.names if name not in self.lists and not self._is_hash(name)]

    def _is_hash(self, name: str) -> bool:
        return name == HASH and name in self.schema.names and self.schema.field(name).type == pa.int64()

    @property
    def lists(self) -> list[str]:
        """The columns of lists, which are large: ``add`` is given those rows of them alone that are ``chosen``."""
        lists = pa.types.is_fixed_size_list
        return [column.name for column in self.schema if lists(column.type)]

    @property
    def columns(self) -> list[str]:
        """What else ``add`` needs of a manifest."""
        return [*(set(self.schema.names) - set(self.lists)), *PLACE] if self.schema.names else []

    def chosen(self, first: int, rows: int) -> slice:
        """Return which of so many kept pictures, of which the first has the number *first*, are compared."""
        return self._every(COMPARED, first, rows)

    def add(self, kept: pa.Table, first: int, lists: pa.Table) -> None:
        """Take in the rows of one shard that may be trained on, of which the first has the number *first*: ``columns``
        of all, and ``lists`` of those that are ``chosen``."""
        if not self.schema.names or not len(kept):
            return
        for name in self.numbers:
            values = kept[name].cast(pa.float64(), safe=False).to_numpy()  # null is NaN; whole numbers are rounded
            self._values.setdefault(name, []).append(values[self._every(DRAWN, first, len(kept))].astype(np.float32))
        if self._is_hash(HASH):
            self._hashes.append(kept[HASH].drop_null().to_numpy())
        numbers = np.arange(len(kept))[self.chosen(first, len(kept))]
        alike = [name for name in self.schema.names if name not in self.numbers]
        if alike and len(numbers):
            found = {name: lists[name] if name in self.lists else kept[name].take(numbers) for name in alike}
            self._compared.append(pa.table({**found, **{name: kept[name].take(numbers) for name in PLACE}}))
        self.kept += len(kept)

    def _every(self, most: int, first: int, rows: int) -> slice:
        """Which of so many rows, from number *first* on, are of at most *most* evenly spread over the corpus."""
        step = -(-self.samples // most) or 1
        return slice(-first % step, rows, step)

    def histograms(self) -> list[Histogram]:
        """Return the distribution of each column, of the pictures whose values were kept."""
        found = []
        for name, parts in self._values.items():
            values = np.concatenate(parts)
            # In double precision bins between neighbours of float32 have a width.
            there = values[np.isfinite(values)].astype(np.float64)
            if not len(there):
                continue
            low, high = float(there.min()), float(there.max())
            counts, _ = np.histogram(there, BINS, (low, high if high > low else low + max(1, abs(low))))
            found.append(
                Histogram(
                    column=name, counts=counts.tolist(), low=low, high=high, median=float(np.median(there)),
                    values=len(there), nulls=len(values) - len(there),
                )
            )  # fmt: skip
        return found

    def copies(self) -> Copies | None:
        """Return how many of all kept pictures have one hash; None where none has any."""
        if not any(map(len, self._hashes)):
            return None
        hashes = np.concatenate(self._hashes)
        hashes.sort()
        begun = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
        most = int(np.diff(np.append(begun, len(hashes))).max())
        return Copies(pictures=len(hashes), copies=len(hashes) - len(begun), most=most)

    def compared(self) -> pa.Table | None:
        """Return the pictures that are compared, with their places; None where no column tells how alike any are."""
        if not self._compared:
            return None
        found = pa.concat_tables(self._compared).combine_chunks()
        for name in set(found.column_names) - set(PLACE):
            found = found.filter(found[name].is_valid())
        return found if len(found) > 1 else None


def likenesses(compared: pa.Table, shown: int) -> list[Likeness]:
    """Return how near the *compared* pictures are to each other by hash and by each embedding, with at most *shown*
    pairs of each."""
    found = []
    for name in compared.column_names:
        if name in PLACE:
            continue
        column = compared[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
            cosines, other = _nearest_cosines(vectors)
            found.append(_likeness(name, cosines, other, NEAR_COSINE, cosines >= NEAR_COSINE, -cosines, shown))
        else:
            bits, other = _nearest_bits(column.to_numpy())
            found.append(_likeness(name, bits, other, NEAR_BITS, bits <= NEAR_BITS, bits, shown))
    return found


def _likeness(
    column: str,
    nearest: np.ndarray,
    other: np.ndarray,
    limit: float,
    near: np.ndarray,
    distance: np.ndarray,
    shown: int,
) -> Likeness:
    pairs: list[NearPair] = []
    used: set[int] = set()
    for first in np.argsort(distance, kind="stable").tolist():
        second = int(other[first])
        if len(pairs) == shown or not near[first]:
            break
        if used.isdisjoint((first, second)):
            used |= {first, second}
            pairs.append(NearPair(first=first, second=second, likeness=float(nearest[first])))
    return Likeness(
        column=column, compared=len(nearest), near=int(near.sum()), limit=limit, nearest=nearest, pairs=pairs
    )


def _nearest_bits(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of int64 ``(N,)`` the fewest bits in which another differs, and which that is."""
    words = hashes.view(np.uint64)
    bits, other = np.empty(len(words), np.int64), np.empty(len(words), np.int64)
    for start in range(0, len(words), BLOCK):
        some = np.bitwise_count(words[start : start + BLOCK, None] ^ words[None, :])
        rows = np.arange(len(some))
        some[rows, start + rows] = LONGEST
        other[start : start + BLOCK] = some.argmin(1)
        bits[start : start + BLOCK] = some.min(1)
    return bits, other


def _nearest_cosines(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of ``(N, D)`` the largest cosine with another, and which that is."""
    units = embeddings.astype(np.float32)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    cosines, other = np.empty(len(units), np.float32), np.empty(len(units), np.int64)
    for start in range(0, len(units), BLOCK):
        some = units[start : start + BLOCK] @ units.T
        rows = np.arange(len(some))
        some[rows, start + rows] = -2
        other[start : start + BLOCK] = some.argmax(1)
        cosines[start : start + BLOCK] = some.max(1)
    return cosines, other
