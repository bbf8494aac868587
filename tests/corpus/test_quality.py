"""Quality over a corpus: distributions, copies and near pictures, from samples that are spread evenly and bounded."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.corpus import quality
from pipeline.corpus.quality import HASH, PLACE, Spread, likenesses

EMBEDDING = pa.list_(pa.float16(), 4)
SCHEMA = pa.schema(
    [("sharpness", pa.float32()), (HASH, pa.int64()), ("embedding", EMBEDDING), ("good", pa.bool_())]
)  # fmt: skip


def shard(number: int, rows: int, **columns: list) -> pa.Table:
    """Rows of a manifest that may be trained on; columns of quality that are not given are plain."""
    given = {
        "sharpness": [float(i) for i in range(rows)],
        HASH: [number * 1000 + i for i in range(rows)],
        "embedding": [np.eye(4, dtype=np.float16)[i % 4] for i in range(rows)],
        "good": [i % 2 == 0 for i in range(rows)],
        **columns,
    }
    facts = {"shard": [number] * rows, "key": [f"{number:06d}{i:05d}" for i in range(rows)]}
    places = {"offset": [512] * rows, "length": [9] * rows, "sha256": ["s"] * rows}
    table = {name: pa.array(values, SCHEMA.field(name).type, from_pandas=True) for name, values in given.items()}
    return pa.table({**table, **facts, **places})


def spread(*shards: pa.Table, samples: int | None = None, schema: pa.Schema = SCHEMA) -> Spread:
    found, first = Spread(schema, sum(map(len, shards)) if samples is None else samples), 0
    for one in shards:
        add(found, one, first)
        first += len(one)
    return found


def add(found: Spread, one: pa.Table, first: int) -> None:
    """Give *found* of *one* shard, whose first row has the number *first*, what it asks for."""
    chosen = np.arange(len(one))[found.chosen(first, len(one))]
    found.add(one.select(found.columns), first, one.select(found.lists).take(chosen))


def test_a_corpus_without_quality_asks_for_nothing_and_has_nothing():
    found = spread(shard(0, 3), schema=pa.schema([]))
    assert (found.columns, found.histograms(), found.copies(), found.compared()) == ([], [], None, None)


def test_histograms_count_every_value_and_say_what_has_none():
    found = spread(shard(0, 4, sharpness=[1.0, None, 3.0, 2.0]), shard(1, 2, sharpness=[9.0, float("nan")]))
    assert sorted([*found.columns, *found.lists]) == sorted([*SCHEMA.names, *PLACE])
    assert found.lists == ["embedding"]
    sharpness, good = found.histograms()
    assert (sharpness.column, sharpness.low, sharpness.high, sharpness.median) == ("sharpness", 1, 9, 2.5)
    assert (sharpness.values, sharpness.nulls, sum(sharpness.counts)) == (4, 2, 4)
    assert (good.column, good.low, good.high, good.counts[0], good.counts[-1]) == ("good", 0, 1, 3, 3)
    assert spread(shard(0, 2, sharpness=[5.0, 5.0])).histograms()[0].counts[0] == 2, "all alike"
    assert [h.column for h in spread(shard(0, 2, sharpness=[None, None])).histograms()] == ["good"]


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([2**62 + 1, 5], pa.int64()),  # no double is as exact
        ([2**64 - 1, None], pa.uint64()),
        ([2**60, 2**60], pa.int64()),
        ([3e9, 3e9], pa.float32()),  # which adding 1 does not change
        ([0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))], pa.float32()),
    ],
)
def test_histograms_are_drawn_of_numbers_of_any_size_however_near_to_each_other(values, type_):
    table = shard(0, 2).append_column("fine", pa.array(values, type_))
    found = spread(table, schema=pa.schema([("fine", type_)]))
    (fine,) = found.histograms()
    there = [value for value in values if value is not None]
    assert (fine.values, fine.nulls, sum(fine.counts)) == (len(there), 2 - len(there), len(there))
    assert (fine.low, fine.high) == (pytest.approx(min(there)), pytest.approx(max(there)))
    assert (fine.counts[0], fine.counts[-1]) == ((1, 1) if len(set(there)) == 2 else (len(there), 0))


def test_copies_are_counted_over_all_rows():
    found = spread(shard(0, 4, hash=[7, -1, 7, None]), shard(1, 3, hash=[7, -1, 0]))
    copies = found.copies()
    assert (copies.pictures, copies.copies, copies.most) == (6, 3, 3)
    assert spread(shard(0, 2, hash=[None, None])).copies() is None


def test_near_pictures_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr(quality, "BLOCK", 16)  # several blocks, and a last one that is not full
    random = np.random.default_rng(0)
    hashes = random.integers(-(2**63), 2**63, 100)
    hashes[70] = hashes[3] ^ 0b1011
    hashes[90] = hashes[8] ^ np.int64(-(2**63))
    hashes[20] = hashes[8]
    vectors = random.normal(size=(100, 4)).astype(np.float16)
    vectors[50] = 2 * vectors[10]
    table = spread(shard(0, 100, hash=hashes.tolist(), embedding=list(vectors))).compared()
    bits, cosines = likenesses(table, 10)
    differing = np.array([[(int(a) ^ int(b)) & (2**64 - 1) for b in hashes] for a in hashes], object)
    expected = [min(v.bit_count() for j, v in enumerate(row) if j != i) for i, row in enumerate(differing)]
    assert bits.nearest.tolist() == expected
    assert (bits.compared, bits.near) == (100, 5)
    assert [({p.first, p.second}, p.likeness) for p in bits.pairs] == [({8, 20}, 0), ({3, 70}, 3)]
    units = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    full = units @ units.T - 9 * np.eye(100)
    assert np.allclose(cosines.nearest, full.max(1), atol=1e-5)
    assert {cosines.pairs[0].first, cosines.pairs[0].second} == {10, 50}
    assert cosines.near == (full.max(1) >= quality.NEAR_COSINE).sum()
    assert len(likenesses(table, 1)[0].pairs) == 1


def test_pictures_without_a_hash_or_an_embedding_are_not_compared():
    table = spread(shard(0, 3, hash=[1, None, 1]), shard(1, 2, embedding=[None, np.ones(4, np.float16)])).compared()
    assert table["key"].to_pylist() == ["00000000000", "00000000002", "00000100001"]
    assert spread(shard(0, 2, hash=[1, None])).compared() is None, "one alone"


@pytest.mark.parametrize("most", [1, 7, 10, 39, 40, 1000])
def test_of_large_corpora_as_many_as_said_are_kept_evenly_spread(most, monkeypatch):
    monkeypatch.setattr(quality, "DRAWN", most)
    monkeypatch.setattr(quality, "COMPARED", most)
    sizes = [7, 0, 13, 1, 19]
    keys = [f"{number:06d}{i:05d}" for number, rows in enumerate(sizes) for i in range(rows)]
    found, first = Spread(SCHEMA, 50), 0  # of 50 that were planned 40 are kept
    for number, rows in enumerate(sizes):
        vectors = [np.full(4, first + i, np.float16) for i in range(rows)]
        add(found, shard(number, rows, sharpness=[float(first + i) for i in range(rows)], embedding=vectors), first)
        first += rows
    step = -(-50 // most)
    chosen = list(range(0, 40, step))
    assert found.kept == 40
    assert len(chosen) <= most
    sharpness = found.histograms()[0]
    assert (sharpness.values, sharpness.low, sharpness.high) == (len(chosen), chosen[0], chosen[-1])
    table = found.compared()
    compared = [] if table is None else [vector[0] for vector in table["embedding"].to_pylist()]
    assert compared == (chosen if len(chosen) > 1 else [])
    if table is not None:
        assert table["key"].to_pylist() == [keys[number] for number in chosen]
    assert found.copies().pictures == 40, "of all"
