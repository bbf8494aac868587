"""The manifest's schema changes only together with its version; older manifests have the columns that came later."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpus.manifest import (
    COLUMNS,
    SCHEMA,
    Column,
    read_manifest,
    read_rows,
    schema,
    with_columns,
    write_manifest,
)
from tests.corpus.conftest import passing, shard_rows

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


def test_only_what_is_asked_for_is_read_and_what_passed_through_too():
    rows, _ = shard_rows(0)
    data = write_manifest(rows, passing(len(rows)))
    assert read_manifest(data, ["status", "source", "elsewhere"]).column_names == ["status", "source"]
    assert read_manifest(data).column_names == [*(column.field.name for column in COLUMNS), "source"]
