"""The manifest's schema changes only together with its version; older manifests have the columns that came later."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus import manifest
from pipeline.corpus.manifest import (
    COLUMNS,
    SCHEMA,
    Column,
    check_quality,
    lacking,
    read_manifest,
    read_rows,
    read_some,
    schema,
    with_columns,
    write_manifest,
)
from pipeline.errors import ConfigError
from tests.corpus.conftest import passing, shard_rows

E = np.eye(3, dtype=np.float16)
GOLDEN = Path(__file__).with_name("manifest_schemas.json")


def described(version: int) -> list[list[str]]:
    return [[f.name, str(f.type), "nullable" if f.nullable else "never null"] for f in schema(version=version)]


def test_each_version_of_the_schema_is_as_it_was_announced():
    golden = json.loads(GOLDEN.read_text())
    for version in range(1, SCHEMA + 1):
        assert described(version) == golden.get(str(version)), (
            "a column came, went or changed: give it a `since` of a SCHEMA raised by one and a default, describe it in "
            f"pipeline/corpus/README.md, and write the new version into {GOLDEN.name}"
        )
    assert golden.keys() == {str(version) for version in range(1, SCHEMA + 1)}


def test_columns_are_only_ever_added():
    versions = [column.since for column in COLUMNS]
    assert all(1 <= since <= SCHEMA for since in versions)
    for earlier, later in zip(range(1, SCHEMA), range(2, SCHEMA + 1), strict=True):
        kept = {tuple(column) for column in described(earlier)} - {tuple(column) for column in described(later)}
        assert kept == set()
    for column in COLUMNS:  # an older manifest can be filled
        assert column.since == 1 or column.field.nullable or column.default is not None


def test_a_manifest_tells_its_version_and_that_of_format_1_tells_none():
    rows, _ = shard_rows(0)
    for version in range(1, SCHEMA + 1):
        for columns in (None, passing(len(rows))):
            data = write_manifest(rows, columns, version)
            told = pq.read_schema(io.BytesIO(data)).metadata or {}
            assert told.get(b"lacuna.manifest") == (None if version == 1 else str(version).encode())
            assert read_rows(data) == read_rows(write_manifest(rows))


def test_a_column_that_came_later_has_its_default_in_older_manifests():
    rows, _ = shard_rows(0)
    table = read_manifest(write_manifest(rows, passing(len(rows))))
    new = (
        Column(pa.field("boxes", pa.list_(pa.float32())), since=9),
        Column(pa.field("judge", pa.string(), nullable=False), since=9, default="none"),
        Column(pa.field("key", pa.string(), nullable=False)),
    )
    filled = with_columns(table, new)
    assert filled.column_names == [*table.column_names, "boxes", "judge"]
    assert filled.schema.field("judge").nullable is False
    assert filled["boxes"].to_pylist() == [None] * len(rows)
    assert filled["judge"].to_pylist() == ["none"] * len(rows)
    assert filled["key"] == table["key"]


QUALITY = pa.schema([("clip", pa.float32()), ("hash", pa.int64()), ("embedding", pa.list_(pa.float16(), 3))])


def test_columns_of_quality_stand_before_those_that_pass_and_are_there_only_where_asked_for():
    rows, _ = shard_rows(0)
    plain = write_manifest(rows, passing(len(rows)))
    rows = [replace(row, quality={"clip": 20.5 + i, "hash": -i, "embedding": E[i % 3]}) for i, row in enumerate(rows)]
    rows[2] = replace(rows[2], quality={})
    rows[3] = replace(rows[3], quality={**rows[3].quality, "clip": float("nan")})
    assert write_manifest(rows, passing(len(rows))) == plain
    columns = passing(len(rows)).append_column("clip", pa.array(range(len(rows)), pa.int64()))
    data = write_manifest(rows[::-1], columns.take(list(range(len(rows)))[::-1]), quality=QUALITY)
    assert data == write_manifest(rows, columns, quality=QUALITY)
    table = read_manifest(data)
    own = [column.field.name for column in COLUMNS]
    assert table.column_names == [*own, "clip", "hash", "embedding", "source", "source_clip"]
    assert table.schema.equals(schema(columns.schema, quality=QUALITY).remove_metadata(), check_metadata=False)
    assert table["clip"].to_pylist() == [20.5, 21.5, None, None, 24.5, 25.5]
    assert table["hash"].to_pylist() == [0, -1, None, -3, -4, -5]
    assert table["embedding"].to_pylist()[1:4] == [[0, 1, 0], None, [1, 0, 0]]
    assert table["source_clip"].to_pylist() == [0, 1, 2, 3, 4, 5]
    assert read_rows(data) == read_rows(plain)
    assert lacking(data, QUALITY) == []
    assert lacking(plain, QUALITY) == QUALITY.names
    assert lacking(data, pa.schema([("clip", pa.float64()), ("hash", pa.int64())])) == ["clip"]


def test_a_column_of_quality_that_a_manifest_has_itself_is_refused():
    check_quality(QUALITY)
    with pytest.raises(ConfigError, match=r"^audit\.quality: a manifest has columns seed, shard of its own"):
        check_quality(pa.schema([("seed", pa.int64()), ("clip", pa.float32()), ("shard", pa.int32())]))


@pytest.mark.parametrize("piece", [1, 2, 4, 100])
def test_some_rows_of_a_column_are_read_piece_by_piece(piece, monkeypatch):
    rows, _ = shard_rows(0)
    rows = [replace(row, quality={"embedding": E[i % 3]} if i != 2 else {}) for i, row in enumerate(rows)]
    data = write_manifest(rows, quality=QUALITY)
    monkeypatch.setattr(manifest, "PIECE", piece)
    for numbers in ([], [0], [1, 2, 5], list(range(len(rows)))):
        found = read_some(data, ["embedding"], np.array(numbers, np.int64))
        assert found.column_names == ["embedding"]
        assert found["embedding"].to_pylist() == [[*E[i % 3]] if i != 2 else None for i in numbers]


def test_only_what_is_asked_for_is_read_and_what_passed_through_too():
    rows, _ = shard_rows(0)
    data = write_manifest(rows, passing(len(rows)))
    assert read_manifest(data, ["status", "source", "elsewhere"]).column_names == ["status", "source"]
    assert read_manifest(data).column_names == [*(column.field.name for column in COLUMNS), "source"]
