"""Prompts from parquet: footers are read when the plan is made, rows only when a shard asks for them.

10^8 rows plan in seconds, because nothing but metadata is touched; the fingerprint is therefore of footers and sizes
(and ETags, where a store has them), not of every byte. A footer holds counts, offsets, sizes and statistics of all
column chunks, so a file that was written anew differs even where its length does not.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, nearest
from pipeline.parallel import in_parallel
from pipeline.prompts.places import Place, find
from pipeline.prompts.source import OWN_COLUMNS, Row, RowError, Wishes, is_text, make_row, pass_through

BATCH = 4096  # rows decoded at once: what is held in memory, beside, for remote files, row groups as they are stored:
GROUPS = 4  # at once where a shuffle draws from many (else one): about 200 MB. On disk 8 took 150 MB more, and as long
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
        for number, (place, footer) in enumerate(zip(self._places, in_parallel(_footer, self._places), strict=True)):
            hashed, metadata, schema = footer
            digest.update(hashed)
            if arrow is None:
                arrow = self._check_schema(place, schema)
            elif not schema.equals(arrow):
                raise ConfigError(f"prompts.source: {place.name} has other columns than {self._places[0].name}")
            self._file_starts.append(self._starts[-1])
            leaf = metadata.schema.names.index(column)
            for group in range(metadata.num_row_groups):
                if _tells_of_empty(metadata.row_group(group).column(leaf)):
                    suspects.append(len(self._groups))
                self._groups.append((number, group))
                self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
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
        for group, part in self._parts(range(start, stop)):
            cursor, self._cursor = self._cursor, None  # kept if nothing is raised: it could not go on after that
            if cursor is None or cursor.group != group or cursor.position > part.start:
                cursor = self._open(group)
            records = cursor.read(part)
            self._cursor = cursor
            rows += [self._row(number, record) for number, record in zip(part, records, strict=True)]
        return rows

    def read_blocks(self, blocks: Sequence[range]) -> list[list[Row | RowError]]:
        """As ``Source`` says. Each row group is read once, by one of several threads, with a file of its own."""

        def read(group: int) -> list[Row | RowError]:
            cursor = self._open(group)
            return [
                self._row_or_error(number, record)
                for part in parts[group]
                for number, record in zip(part, cursor.read(part), strict=True)
            ]

        parts: dict[int, list[range]] = {}  # ascending, as blocks are
        for block in blocks:
            for group, part in self._parts(block):
                parts.setdefault(group, []).append(part)
        rows = chain.from_iterable(in_parallel(read, list(parts), threads=GROUPS))
        return [list(islice(rows, len(block))) for block in blocks]

    def _parts(self, rows: range) -> Iterator[tuple[int, range]]:
        """Cut *rows* where row groups end."""
        start = rows.start
        while start < rows.stop:
            group = bisect_right(self._starts, start) - 1
            end = min(rows.stop, self._starts[group + 1])
            yield group, range(start, end)
            start = end

    def _open(self, group: int) -> "_Cursor":
        number, in_file = self._groups[group]
        footer = self._footer
        if footer is None or footer[0] != number:
            with self._places[number].open() as file, _reading(self._places[number], "the footer"):
                self._footer = footer = number, pq.read_metadata(file)
        batches = _batches(self._places[number], in_file, self._columns, footer[1])
        return _Cursor(group, self._starts[group], batches)

    def _row(self, number: int, record: dict[str, Any]) -> Row:
        file = bisect_right(self._file_starts, number) - 1
        where = f"prompts.source: {self._places[file].name}: row {number - self._file_starts[file] + 1}"
        return make_row(record, self._column, where, {name: record[name] for name in self.schema.names})

    def _row_or_error(self, number: int, record: dict[str, Any]) -> Row | RowError:
        try:
            return self._row(number, record)
        except RowError as error:
            return error

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

    def __init__(self, group: int, first: int, batches: Iterator[pa.RecordBatch]):
        self.group = group
        self.position = first  # row at which the kept batch starts
        self._batch: pa.RecordBatch | None = None
        self._batches = batches

    def read(self, rows: range) -> list[dict[str, Any]]:
        """Return these rows as dicts; they must all be of the group, and none before ``position``."""
        found: list[dict[str, Any]] = []
        start = rows.start
        while True:
            if self._batch is None:
                self._batch = next(self._batches)
            end = self.position + self._batch.num_rows
            if start < end:
                found += self._batch.slice(start - self.position, min(rows.stop, end) - start).to_pylist()
                start = min(rows.stop, end)
            if start == rows.stop:
                return found
            self.position, self._batch = end, None


def _batches(place: Place, in_file: int, columns: list[str], footer: pq.FileMetaData) -> Iterator[pa.RecordBatch]:
    with place.open() as file, _reading(place, f"row group {in_file}"):
        # Remote files are fetched in few large reads; local ones are read a megabyte at a time as they are decoded.
        remote = "://" in place.name
        parquet = pq.ParquetFile(file, metadata=footer, pre_buffer=remote, buffer_size=0 if remote else 1 << 20)
        yield from parquet.iter_batches(BATCH, row_groups=[in_file], columns=columns, use_threads=False)


@contextmanager
def _reading(place: Place, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"prompts.source: {place.name}: {what} cannot be read: {reason}") from error


def _footer(place: Place) -> tuple[bytes, pq.FileMetaData, pa.Schema]:
    """Return a hash of a file's size, ETag and footer, and what the footer says. It is fetched once.

    Raises ``ConfigError`` where this is no parquet file.
    """
    with place.open() as file, _reading(place, "the footer"):
        tail = b""
        if place.size >= 12:
            file.seek(place.size - 8)
            tail = file.read(8)
        if tail[4:] != MAGIC:
            raise ConfigError(f"prompts.source: {place.name} is not a parquet file, or it is cut off")
        length = int.from_bytes(tail[:4], "little")
        file.seek(place.size - 8 - length)
        footer = file.read(length)
        metadata = file.metadata() if not place.etag else {}
        parquet = pq.ParquetFile(pa.BufferReader(footer + tail))
    etag = place.etag or (metadata or {}).get(b"ETag", b"").decode()
    return hashlib.sha256(f"{place.size} {etag} ".encode() + footer).digest(), parquet.metadata, parquet.schema_arrow


def _tells_of_empty(chunk: pq.ColumnChunkMetaData) -> bool:
    statistics = chunk.statistics if chunk.is_stats_set else None
    if statistics is None:
        return False
    return bool(statistics.null_count) or (statistics.has_min_max and statistics.min == "")
