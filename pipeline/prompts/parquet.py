"""Prompts from parquet: footers are read when the source is opened, rows when a plan looks or a shard asks for them.

10^8 rows plan in seconds, because little but metadata is touched; the fingerprint is therefore of footers and sizes
(and ETags, where a store has them), not of every byte. A footer holds counts, offsets, sizes and statistics of all
column chunks, so a file that was written anew differs even where its length does not.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError
from pipeline.parallel import in_parallel
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.passing import check_steering, joined, passing_schema
from pipeline.prompts.places import Place, find
from pipeline.prompts.source import Looked, Rows
from pipeline.prompts.tables import look_at, sampled, table_rows

BATCH = 4096  # rows decoded at once: what is held in memory, beside, for remote files, row groups as they are stored:
GROUPS = 4  # at once where a shuffle draws from many (else one): about 200 MB. On disk 8 took 150 MB more, and as long
MAGIC = b"PAR1"


class ParquetSource:
    """One or more parquet files in the order of their names, as one table. Messages count rows of a file from 1."""

    def __init__(self, prompts: PromptsConfig):
        assert prompts.source is not None
        self.meaning = meaning = Meaning.of(prompts)
        self._limit = prompts.limit
        self._places = find(prompts.source)
        self._groups: list[tuple[int, int]] = []  # (file, row group in it)
        self._starts = [0]  # first row of each group, and one past the last row
        self._file_starts: list[int] = []
        self._columns: list[list[str]] = []  # of each file, those that are read
        self._suspects: list[int] = []  # groups whose statistics tell of an empty prompt
        self._cursor: _Cursor | None = None
        self._footer: tuple[int, pq.FileMetaData] | None = None  # of the file last read, so that it is parsed once
        digest = hashlib.sha256()
        parts: list[tuple[str, pa.Schema]] = []
        for number, (place, footer) in enumerate(zip(self._places, in_parallel(_footer, self._places), strict=True)):
            hashed, metadata, schema = footer
            digest.update(hashed)
            meaning.check_part(schema.names, place.name)
            parts.append((place.name, schema))
            steering = set(meaning.steering.values())
            self._columns.append([n for n in schema.names if n in steering or meaning.passes(n)])
            self._file_starts.append(self._starts[-1])
            leaf = next((i for i, column in enumerate(metadata.schema) if column.path == meaning.prompt), None)
            for group in range(metadata.num_row_groups):
                if leaf is not None and _tells_of_empty(metadata.row_group(group).column(leaf)):
                    self._suspects.append(len(self._groups))
                self._groups.append((number, group))
                self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        self.names = list(dict.fromkeys(name for _, schema in parts for name in schema.names))
        meaning.check(self.names, prompts.source)
        check_steering(parts, meaning)
        self.schema = passing_schema(parts, meaning)
        self.fingerprint = f"parquet:{digest.hexdigest()}"

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cursor": None, "_footer": None}  # open files cannot travel

    def look(self) -> Looked:
        """Look at the columns that steer: in all row groups, or the first rows of some, and the whole of the first of
        which the footers tell that a prompt is missing."""
        rows = len(self) if self._limit is None else min(len(self), self._limit)
        groups = {i: range(a, min(b, rows)) for i, (a, b) in enumerate(pairwise(self._starts)) if a < min(b, rows)}
        chosen = {part.start: part for part in sampled(rows, list(groups.values()))}
        suspects = [groups[i] for i in self._suspects if i in groups]
        if suspects:
            chosen[suspects[0].start] = suspects[0]
        looked = Looked()
        for _, part in sorted(chosen.items()):
            group = bisect_right(self._starts, part.start) - 1
            names = self.meaning.steers(self._columns[self._groups[group][0]]).values()
            start = part.start
            for batch in self._open(group, list(names)).batches(len(part)):
                look_at(pa.table(batch), start, self.meaning, looked, self.where)
                start += len(batch)
        return looked

    def where(self, number: int) -> str:
        file = bisect_right(self._file_starts, number) - 1
        return f"{self._places[file].name}: row {number - self._file_starts[file] + 1}"

    def read(self, start: int, stop: int) -> Rows:
        """Return rows *start* to *stop*. Memory: these rows and one batch, whatever the size of a row group."""
        found = []
        for group, part in self._parts(range(start, stop)):
            cursor, self._cursor = self._cursor, None  # kept if nothing is raised: it could not go on after that
            if cursor is None or cursor.group != group or cursor.position > part.start:
                cursor = self._open(group)
            found.append(table_rows(cursor.read(part), self.meaning, self.schema))
            self._cursor = cursor
        return joined(found, self.schema)

    def read_blocks(self, blocks: Sequence[range]) -> list[Rows]:
        """As ``RowSource`` says. Each row group is read once, by one of several threads, with a file of its own."""

        def read(group: int) -> list[Rows]:
            cursor = self._open(group)
            return [table_rows(cursor.read(part), self.meaning, self.schema) for part in parts[group]]

        parts: dict[int, list[range]] = {}  # ascending, as blocks are
        for block in blocks:
            for group, part in self._parts(block):
                parts.setdefault(group, []).append(part)
        found = chain.from_iterable(in_parallel(read, list(parts), threads=GROUPS))
        return [joined([next(found) for _ in self._parts(block)], self.schema) for block in blocks]

    def _parts(self, rows: range) -> Iterator[tuple[int, range]]:
        """Cut *rows* where row groups end."""
        start = rows.start
        while start < rows.stop:
            group = bisect_right(self._starts, start) - 1
            end = min(rows.stop, self._starts[group + 1])
            yield group, range(start, end)
            start = end

    def _open(self, group: int, columns: list[str] | None = None) -> "_Cursor":
        number, in_file = self._groups[group]
        footer = self._footer
        if footer is None or footer[0] != number:
            with self._places[number].open() as file, _reading(self._places[number], "the footer"):
                self._footer = footer = number, pq.read_metadata(file)
        batches = _batches(self._places[number], in_file, columns or self._columns[number], footer[1])
        return _Cursor(group, self._starts[group], batches)


class _Cursor:
    """Forward reading of one row group, batch by batch, so that consecutive shards decode nothing twice."""

    def __init__(self, group: int, first: int, batches: Iterator[pa.RecordBatch]):
        self.group = group
        self.position = first  # row at which the kept batch starts
        self._batch: pa.RecordBatch | None = None
        self._batches = batches

    def read(self, rows: range) -> pa.Table:
        """Return these rows; they must all be of the group, and none before ``position``."""
        found: list[pa.RecordBatch] = []
        start = rows.start
        while True:
            if self._batch is None:
                self._batch = next(self._batches)
            end = self.position + self._batch.num_rows
            if start < end:
                found.append(self._batch.slice(start - self.position, min(rows.stop, end) - start))
                start = min(rows.stop, end)
            if start == rows.stop:
                return pa.Table.from_batches(found)
            self.position, self._batch = end, None

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the first *rows* rows as they are decoded."""
        for batch in self._batches:
            yield batch.slice(0, rows)
            rows -= len(batch)
            if rows <= 0:
                return


def _batches(place: Place, in_file: int, columns: list[str], footer: pq.FileMetaData) -> Iterator[pa.RecordBatch]:
    with place.open() as file, _reading(place, f"row group {in_file}"):
        # Remote files are fetched in few large reads; local ones are read a megabyte at a time as they are decoded.
        remote = "://" in place.name
        parquet = pq.ParquetFile(file, metadata=footer, pre_buffer=remote, buffer_size=0 if remote else 1 << 20)
        for batch in parquet.iter_batches(BATCH, row_groups=[in_file], columns=columns, use_threads=False):
            yield batch.select(columns)  # a name also stands for others that begin with it and a dot


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
