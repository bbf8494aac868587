"""Prompts from text files with random access through a sparse index.

One pass at the start hashes the text, looks at every row and keeps the offset of every ``STRIDE``-th; 10 million rows
take 160 kB of index. Rows of a file are counted from 1 in messages, without a header.
"""

import hashlib
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from gzip import BadGzipFile
from itertools import islice
from typing import Any, BinaryIO

from pipeline.errors import ConfigError
from pipeline.prompts.columns import ColumnTypes, as_table
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.passing import passing_schema, with_faults
from pipeline.prompts.source import Looked, Row, Rows, is_plain, make_row, one_by_one
from pipeline.prompts.textfiles import Record, TextFile

STRIDE = 512  # rows between known offsets: at most so many are parsed in vain for a read


class LinesSource:
    """Random access to the rows of text files, one after another in the order given.

    Raises ``ConfigError`` at once where rows cannot be told from each other, or a column has no single type.
    """

    read_blocks = one_by_one

    def __init__(self, files: Sequence[TextFile], meaning: Meaning, limit: int | None):
        self.meaning = meaning
        self._files = files
        self._offsets = [array("Q") for _ in files]  # of rows 0, STRIDE, 2 * STRIDE, ... of each file
        self._starts = [0]  # the first row of each file, and one past the last row
        self._stamps = [self._look(file) for file in files]
        self._opened: tuple[TextFile, BinaryIO] | None = None
        self._looked = Looked()
        types = ColumnTypes(meaning, self.where)
        digests = []
        for number, file in enumerate(files):
            if file.names is not None:
                meaning.check_part(file.names, str(file.path))
            with file.open() as text, _readable(file):
                digests.append(hashlib.file_digest(text, "sha256").hexdigest())  # type: ignore[arg-type]
            self._index(number, types, limit)
        self.fingerprint = f"sha256:{digests[0] if len(files) == 1 else _sha256(' '.join(digests))}"
        name = str(files[0].path) if len(files) == 1 else f"{files[0].path} to {files[-1].path.name}"
        passing = types.schema()
        self.names = list(dict.fromkeys([*(n for file in files for n in file.names or ()), *types.names]))
        if self.names:  # else each row is bad, and says more
            meaning.check(self.names, name)
        self.schema = passing_schema([(name, passing)], meaning)
        for row, fault in types.faults.items():
            if limit is None or row < limit:
                self._looked.add(row, Row(prompt="", fault=fault), self.where)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # an open file cannot travel

    def look(self) -> Looked:
        """Return what the pass at the start has shown, of all rows."""
        return self._looked

    def where(self, number: int) -> str:
        file = min(bisect_right(self._starts, number), len(self._files)) - 1
        return f"{self._files[file].path}: row {number - self._starts[file] + 1}"

    def read(self, start: int, stop: int) -> Rows:
        """Return rows *start* to *stop*. Raises ``ConfigError`` where a file was changed meanwhile."""
        records = [record for part in self._parts(start, stop) for _, record in part]
        rows = [self._row(record) for record in records]
        columns, faults = as_table([None if isinstance(r, str) else r for r in records], self.schema)
        return with_faults(rows, faults, columns)

    def _index(self, number: int, types: ColumnTypes, limit: int | None) -> None:
        """Look at every row of one file."""
        file, offsets, row = self._files[number], self._offsets[number], self._starts[-1]
        first, prompt = row, self.meaning.prompt
        others = frozenset(self.meaning.steering.values()) - {prompt}
        self._starts.append(row)  # for ``where``
        with file.open() as text:
            for offset, record in self._numbered(file, text, file.start, row):
                if (row - first) % STRIDE == 0:
                    offsets.append(offset)
                bad = False
                if isinstance(record, str) or not (is_plain(record.get(prompt)) and others.isdisjoint(record)):
                    made = self._row(record)
                    bad = made.fault is not None
                    if limit is None or row < limit:
                        self._looked.add(row, made, self.where)
                if not isinstance(record, str):
                    types.add(row, record, bad)
                row += 1
                self._starts[-1] = row
        self._looked.rows = row if limit is None else min(row, limit)

    def _row(self, record: dict[str, Any] | str) -> Row:
        return Row(prompt="", fault=record) if isinstance(record, str) else make_row(record, self.meaning)

    def _parts(self, start: int, stop: int) -> Iterator[Iterator[Record]]:
        """Yield the records of rows *start* to *stop*, file by file."""
        for number, file in enumerate(self._files):
            first, end = self._starts[number], self._starts[number + 1]
            if start >= min(stop, end) or stop <= first:
                continue
            if self._look(file) != self._stamps[number]:
                raise ConfigError(f"prompts.source: {file.path} was changed since the plan was made; start again")
            known = (start - first) // STRIDE
            row = first + known * STRIDE
            if self._opened is None or self._opened[0] is not file:
                self._opened = file, file.open()  # kept: a compressed file is read on from where it stands
            records = self._numbered(file, self._opened[1], self._offsets[number][known], row)
            yield islice(records, start - row, min(stop, end) - row)
            start = min(stop, end)

    def _numbered(self, file: TextFile, text: BinaryIO, offset: int, number: int) -> Iterator[Record]:
        """The format's records, with the row's number in its errors; *number* is the row at *offset*."""
        with _readable(file):
            try:
                for record in file.records(text, offset):
                    yield record
                    number += 1
            except ConfigError as error:
                raise type(error)(f"prompts.source: {self.where(number)} {error}") from None

    @staticmethod
    def _look(file: TextFile) -> tuple[int, int]:
        stat = file.path.stat()
        return stat.st_size, stat.st_mtime_ns


class _readable:
    """Turns what a damaged compressed file raises into a ``ConfigError``."""

    def __init__(self, file: TextFile):
        self._file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (BadGzipFile, EOFError, zlib.error)):
            raise ConfigError(f"prompts.source: {self._file.path} cannot be decompressed: {error}") from None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
