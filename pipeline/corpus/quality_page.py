"""What the report shows of quality: distributions, copies, and pairs of kept pictures that are nearly alike."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.corpus import layout
from pipeline.corpus.account import QUALITY, measure
from pipeline.corpus.quality import BINS, HASH, Copies, Histogram, Likeness, NearPair, Spread, likenesses
from pipeline.corpus.run_record import RunRecord
from pipeline.corpus.stores import Store
from pipeline.pages.page import Bars

SHOWN = 12  # pairs
MOST_BITS = 32  # that are told from each other; pictures that differ in more are apart


@dataclass(frozen=True, kw_only=True)
class ShownPair:
    """Two encoded pictures, their keys, and how alike they are, in words."""

    first: bytes
    second: bytes
    keys: str
    likeness: str


@dataclass(frozen=True, kw_only=True)
class Alike:
    """What is shown of how alike pictures are by one column."""

    column: str
    said: str
    chart: Bars
    pairs: Sequence[ShownPair]


@dataclass(frozen=True, kw_only=True)
class QualitySection:
    """The report's section on quality: what was ``said``, a line for each of the measures, charts with captions."""

    said: str
    measures: Sequence[str]
    charts: Sequence[tuple[Bars, str]]
    copies: str
    alike: Sequence[Alike]


def quality_section(store: Store, run: RunRecord, spread: Spread) -> QualitySection | None:
    """Return what the report shows of *spread*, with pictures from their tars; None where nothing was measured."""
    if not run.quality:
        return None
    copies, table = spread.copies(), spread.compared()
    return QualitySection(
        said=QUALITY,
        measures=[measure(facts) for facts in run.quality],
        charts=[_chart(histogram, spread.kept) for histogram in spread.histograms()],
        copies=copies_line(copies) if copies else "",
        alike=[] if table is None else [_alike(store, table, found, spread) for found in likenesses(table, SHOWN)],
    )


def copies_line(copies: Copies) -> str:
    """Return a sentence on pictures of one hash."""
    said = f"Of {copies.pictures:,} kept pictures {copies.copies:,} have the perceptual hash of an earlier one"
    return f"{said}; {copies.most:,} at most have the same." if copies.copies else f"{said}."


def alike_line(found: Likeness, kept: int) -> str:
    """Return sentences on how many of the pictures that were compared, of so many *kept* ones, are nearly alike."""
    by_bits = found.column == HASH
    near = f"differs in at most {found.limit} of 64 bits" if by_bits else f"has a cosine of {found.limit} or more"
    if found.compared == kept:
        return f"Of {kept:,} kept pictures {found.near:,} have another that {near}."
    return (
        f"Only {found.compared:,} of {kept:,} kept pictures, evenly spread, are compared with each other: what is "
        f"nearly alike among the rest, or between these and the rest, is not looked for. {found.near:,} of them have "
        f"another among them that {near}."
    )


def _chart(found: Histogram, kept: int) -> tuple[Bars, str]:
    width = (found.high - found.low) / len(found.counts)
    bars = [
        (float(n), f"{found.low + i * width:.4g} to {found.low + (i + 1) * width:.4g}: {n:,}")
        for i, n in enumerate(found.counts)
    ]
    chart = Bars(
        title=f"{found.column}: median {found.median:.4g}, most in a bin {max(found.counts):,}",
        bars=bars,
        first=f"{found.low:.4g}",
        last=f"{found.high:.4g}",
    )
    some = found.values + found.nulls
    of = f"Of {some:,} of {kept:,} kept pictures, evenly spread." if some < kept else f"Of {some:,} kept pictures."
    return chart, f"{of} {found.nulls:,} have no value." if found.nulls else of


def _alike(store: Store, table: pa.Table, found: Likeness, spread: Spread) -> Alike:
    by_bits = found.column == HASH
    return Alike(
        column=found.column,
        said=alike_line(found, spread.kept),
        chart=_bits(found.nearest) if by_bits else _cosines(found.nearest),
        pairs=[shown for pair in found.pairs if (shown := _shown(store, table, pair, by_bits)) is not None],
    )


def _bits(nearest: np.ndarray) -> Bars:
    # Half of the bits of every hash are set, unless coefficients are equal, so that nearly all distances are even.
    counts = np.bincount(np.minimum(nearest, MOST_BITS) // 2, minlength=MOST_BITS // 2 + 1).tolist()
    said = [*(f"{2 * i} or {2 * i + 1}" for i in range(len(counts) - 1)), f"{MOST_BITS} or more"]
    return Bars(
        title=f"bits in which the nearest other differs: most in a bin {max(counts):,}",
        bars=[(float(n), f"{bits}: {n:,}") for bits, n in zip(said, counts, strict=True)],
        first="0",
        last=f"{MOST_BITS} or more",
    )


def _cosines(nearest: np.ndarray) -> Bars:
    low = min(float(nearest.min()), 0.99)
    counts, edges = np.histogram(np.minimum(nearest, 1), BINS, (low, 1))
    pairs = zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    return Bars(
        title=f"cosine with the nearest other: most in a bin {counts.max():,}",
        bars=[(float(n), f"{a:.3f} to {b:.3f}: {n:,}") for n, a, b in pairs],
        first=f"{low:.3f}",
        last="1",
    )


def _shown(store: Store, table: pa.Table, pair: NearPair, by_bits: bool) -> ShownPair | None:
    """Return a pair with its pictures; None where one is damaged, which ``verify`` says."""
    images, keys = [], []
    for number in (pair.first, pair.second):
        row = {name: table[name][number].as_py() for name in ("shard", "key", "offset", "length", "sha256")}
        image = store.read_range(layout.tar(row["shard"]), row["offset"], row["length"])
        if hashlib.sha256(image).hexdigest() != row["sha256"]:
            return None
        images.append(image)
        keys.append(row["key"])
    likeness = f"{pair.likeness:.0f} bits differ" if by_bits else f"cosine {pair.likeness:.3f}"
    return ShownPair(first=images[0], second=images[1], keys=" and ".join(keys), likeness=likeness)
