"""Prompts from parquet: footers are read when the plan is made, rows only when a shard asks for them.

10^8 rows plan in seconds, because nothing but metadata is touched; the fingerprint is therefore of footers and sizes
(and ETags, where a store has them), not of every byte. A footer holds counts, offsets, sizes and statistics of all
column chunks, so a file that was written anew differs even where its length does not.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, nearest
from pipeline.prompts.places import Place, find
from pipeline.prompts.source import OWN_COLUMNS, Row, Wishes, is_text, make_row, pass_through

BATCH = 4096  # rows decoded at once: what is held in memory, beside, for remote files, one row group as it is stored
MAGIC = b"PAR1"


class ParquetSource:
    """One or more parquet files of one schema, in the order of their names. Messages count rows of a file from 1."""

    wishes = Wishes()

    def __init__(self, source: str, column: str):
        self._column = column
        self._places = find(source)
        self._groups: list[tuple[int, int]] = []  # (file, row group in it)
        self._starts = [0]  # first row of each group, and one past the last row
        self._file_starts: list[int] = []
        self._cursor: _Cursor | None = None
        self._footer: tuple[int, pq.FileMetaData] | None = None  # of the file last read, so that it is parsed once
        digest = hashlib.sha256()
        suspects: list[int] = []  # groups whose statistics tell of an empty prompt
        arrow: pa.Schema | None = None
        for number, place in enumerate(self._places):
            with place.open() as file:
                digest.update(_footer_digest(place, file))
                parquet = pq.ParquetFile(file)
                if arrow is None:
                    arrow = self._check_schema(place, parquet.schema_arrow)
                elif not parquet.schema_arrow.equals(arrow):
                    raise ConfigError(f"prompts.source: {place.name} has other columns than {self._places[0].name}")
                self._file_starts.append(self._starts[-1])
                leaf = parquet.metadata.schema.names.index(column)
                for group in range(parquet.num_row_groups):
                    metadata = parquet.metadata.row_group(group)
                    if _tells_of_empty(metadata.column(leaf)):
                        suspects.append(len(self._groups))
                    self._groups.append((number, group))
                    self._starts.append(self._starts[-1] + metadata.num_rows)
        assert arrow is not None  # find() returns at least one place
        self.schema = pass_through(arrow, column)
        self._columns = [column, *(c for c in OWN_COLUMNS if c in arrow.names), *self.schema.names]
        self.fingerprint = f"parquet:{digest.hexdigest()}"
        for group in suspects:
            self.read(self._starts[group], self._starts[group + 1])  # names the row

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cursor": None, "_footer": None}  # open files cannot travel

    def read(self, start: int, stop: int) -> list[Row]:
        """Return rows *start* to *stop*. Memory: these rows and one batch, whatever the size of a row group."""
        rows: list[Row] = []
        while start < stop:
            group = bisect_right(self._starts, start) - 1
            end = min(stop, self._starts[group + 1])
            first = self._starts[group]
            records = self._group(group, start - first).read(start - first, end - first)
            number, _ = self._groups[group]
            place, file_start = self._places[number], self._file_starts[number]
            for i, record in enumerate(records, start - file_start):
                columns = {name: record[name] for name in self.schema.names}
                where = f"prompts.source: {place.name}: row {i + 1}"
                rows.append(make_row(record, self._column, where, columns))
            start = end
        return rows

    def _group(self, group: int, start: int) -> "_Cursor":
        """Return a cursor over *group* that has not passed row *start* of it: the last one, where it serves."""
        if self._cursor is None or self._cursor.group != group or self._cursor.position > start:
            number, in_file = self._groups[group]
            if self._footer is None or self._footer[0] != number:
                with self._places[number].open() as file:
                    self._footer = number, pq.read_metadata(file)
            self._cursor = _Cursor(self._places[number], group, in_file, self._columns, self._footer[1])
        return self._cursor

    def _check_schema(self, place: Place, arrow: pa.Schema) -> pa.Schema:
        if self._column not in arrow.names:
            has = f"{nearest(self._column, arrow.names)}; it has {', '.join(arrow.names)}"
            raise ConfigError(f"prompts.column: {place.name} has no column {self._column!r}{has}")
        type_ = arrow.field(self._column).type
        if not is_text(type_):
            raise ConfigError(f"prompts.column: column {self._column!r} of {place.name} is {type_}; expected text")
        return arrow


class _Cursor:
    """Forward reading of one row group, batch by batch, so that consecutive shards decode nothing twice."""

    def __init__(self, place: Place, group: int, in_file: int, columns: list[str], footer: pq.FileMetaData):
        self.group = group
        self.position = 0  # row of the group at which the kept batch starts
        self._batch: pa.RecordBatch | None = None
        self._batches = _batches(place, in_file, columns, footer)

    def read(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return rows *start* to *stop* of the group as dicts; *start* must not lie before ``position``."""
        found: list[dict[str, Any]] = []
        while True:
            if self._batch is None:
                self._batch = next(self._batches)
            end = self.position + self._batch.num_rows
            if start < end:
                found += self._batch.slice(start - self.position, min(stop, end) - start).to_pylist()
                start = min(stop, end)
            if start == stop:
                return found
            self.position, self._batch = end, None


def _batches(place: Place, in_file: int, columns: list[str], footer: pq.FileMetaData) -> Iterator[pa.RecordBatch]:
    with place.open() as file:
        # Remote files are fetched in few large reads; local ones are read a megabyte at a time as they are decoded.
        remote = "://" in place.name
        parquet = pq.ParquetFile(file, metadata=footer, pre_buffer=remote, buffer_size=0 if remote else 1 << 20)
        try:
            yield from parquet.iter_batches(BATCH, row_groups=[in_file], columns=columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"prompts.source: {place.name}: row group {in_file} cannot be read: {reason}") from error


def _footer_digest(place: Place, file: pa.NativeFile) -> bytes:
    """Hash a file's size, ETag and footer. Raises ``ConfigError`` where it is no parquet file."""
    tail = b""
    if place.size >= 12:
        file.seek(place.size - 8)
        tail = file.read(8)
    if tail[4:] != MAGIC:
        raise ConfigError(f"prompts.source: {place.name} is not a parquet file, or it is cut off")
    length = int.from_bytes(tail[:4], "little")
    file.seek(place.size - 8 - length)
    metadata = file.metadata() if not place.etag else {}
    etag = place.etag or (metadata or {}).get(b"ETag", b"").decode()
    return hashlib.sha256(f"{place.size} {etag} ".encode() + file.read(length)).digest()


def _tells_of_empty(chunk: pq.ColumnChunkMetaData) -> bool:
    statistics = chunk.statistics if chunk.is_stats_set else None
    if statistics is None:
        return False
    return bool(statistics.null_count) or (statistics.has_min_max and statistics.min == "")
