"""Prompts from text files: .txt (a prompt a line), .jsonl, .csv and .tsv, with random access through a sparse index.

One pass at the start hashes the file, checks every row and keeps the offset of every ``STRIDE``-th; 10 million rows
take 160 kB of index. Blank lines are no rows. Rows are counted from 1 in messages, without a header.
"""

import csv
import hashlib
import json
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pipeline.errors import ConfigError, nearest
from pipeline.prompts.columns import ColumnTypes, as_columns
from pipeline.prompts.source import OWN_COLUMNS, Row, Wishes, is_plain, make_row, one_by_one, pass_through

STRIDE = 512  # rows between known offsets: at most so many are parsed in vain for a read
JSON_SPACE = " \t\n\r"
BOM = b"\xef\xbb\xbf"

Record = tuple[int, dict[str, Any]]  # the offset in bytes at which a row starts, and the row


class TextFile:
    """One format: a file of rows, of which reading may start at the offset of any. ``start`` is the first's."""

    start = 0

    def __init__(self, path: Path, column: str):
        self.path, self.column = path, column

    def records(self, file: BinaryIO, offset: int) -> Iterator[Record]:
        """Yield the rows from *offset* on, where a row must start. Raises ``ConfigError`` without the row's number."""
        raise NotImplementedError

    def lines(self, file: BinaryIO, offset: int) -> Iterator[tuple[int, int, str]]:
        """Yield start and end in bytes, and the text with its line end, of each line from *offset* on."""
        file.seek(offset)
        for line in file:
            end = offset + len(line)
            try:
                yield offset, end, (line.removeprefix(BOM) if offset == 0 else line).decode()
            except UnicodeDecodeError:
                raise ConfigError("is not UTF-8 text") from None
            offset = end


class Txt(TextFile):
    def records(self, file: BinaryIO, offset: int) -> Iterator[Record]:
        for start, _, line in self.lines(file, offset):
            if line.strip():
                yield start, {self.column: line.strip()}


class JsonLines(TextFile):
    def records(self, file: BinaryIO, offset: int) -> Iterator[Record]:
        parse = json.JSONDecoder().raw_decode
        for start, _, line in self.lines(file, offset):
            text = line.strip(JSON_SPACE)
            try:
                record, end = parse(text)  # what json.loads does, without its 0.6 us of looking for white space
            except ValueError:
                end = -1
            if end != len(text):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)  # raises, and says where
                except ValueError as error:
                    raise ConfigError(f"is not valid JSON: {error}") from None
            if not isinstance(record, dict):
                raise ConfigError(f'is no JSON object; expected such as {{"{self.column}": "a text"}}')
            yield start, record


class QuotingError(ConfigError):
    """Quotation marks that quote nothing."""


class Csv(TextFile):
    """Fields in quotes may hold delimiters and line ends; ``quoted=False`` takes quotation marks as they are.

    Every value is text.
    """

    def __init__(self, path: Path, column: str, delimiter: str, *, quoted: bool = True):
        super().__init__(path, column)
        self.delimiter = delimiter
        self.quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        self.header: list[str] = []
        with path.open("rb") as file:
            rows = self._rows(file, 0)
            try:
                self.header = next(rows, (0, []))[1]
                self.start = next(rows, (path.stat().st_size, []))[0]
            except ConfigError as error:
                where = "row 1" if self.header else "the header"
                raise type(error)(f"prompts.source: {path}: {where} {error}") from None
        if column not in self.header:
            has = f"{nearest(column, self.header)}; it has {', '.join(self.header) or 'none'}"
            raise ConfigError(f"prompts.column: {path} has no column {column!r}{has}")
        if len(set(self.header)) < len(self.header):
            raise ConfigError(f"prompts.source: {path} has two columns of one name; it has {', '.join(self.header)}")

    def records(self, file: BinaryIO, offset: int) -> Iterator[Record]:
        for start, fields in self._rows(file, offset):
            if len(fields) != len(self.header):
                raise ConfigError(f"has {len(fields)} fields; expected {len(self.header)} ({', '.join(self.header)})")
            yield start, dict(zip(self.header, fields, strict=True))

    def _rows(self, file: BinaryIO, offset: int) -> Iterator[tuple[int, list[str]]]:
        read = offset  # the reader takes a line only when it needs one, so this is where its next row starts

        def lines() -> Iterator[str]:
            nonlocal read
            for _, read, line in self.lines(file, offset):  # noqa: B007
                yield line

        reader = csv.reader(lines(), delimiter=self.delimiter, quoting=self.quoting, strict=True)
        start = read
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise QuotingError(f"is not valid {self.path.suffix[1:].upper()}: {error}") from None
            if fields is None:
                return
            if fields:
                yield start, fields
            start = read


class LinesSource:
    """Random access to the rows of a text file. Raises ``ConfigError`` at once for any row that cannot be used."""

    read_blocks = one_by_one

    def __init__(self, format: TextFile):
        self._format = format
        self._offsets = array("Q")  # of rows 0, STRIDE, 2 * STRIDE, ...
        self._count = 0
        self._stamp = self._look()
        sizes: dict[tuple[int, int], int] = {}
        negative: int | None = None
        types = ColumnTypes(f"prompts.source: {format.path}", {format.column, *OWN_COLUMNS})
        with format.path.open("rb") as file:
            self.fingerprint = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            for offset, record in self._numbered(file, format.start, 0):
                if self._count % STRIDE == 0:
                    self._offsets.append(offset)
                if not is_plain(record, format.column):
                    row = make_row(record, format.column, self._where(self._count), {})
                    if row.size is not None:
                        sizes.setdefault(row.size, self._count)
                    if negative is None and row.negative_prompt is not None:
                        negative = self._count
                types.add(record)
                self._count += 1
        self.wishes = Wishes(sizes=sizes, negative=negative)
        self.schema = pass_through(types.schema(), format.column)

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> list[Row]:
        """Return rows *start* to *stop*. Raises ``ConfigError`` where the file was changed meanwhile."""
        if self._look() != self._stamp:
            raise ConfigError(f"prompts.source: {self._format.path} was changed since the plan was made; start again")
        nearest_known = start // STRIDE
        first = nearest_known * STRIDE
        with self._format.path.open("rb") as file:
            found = islice(self._numbered(file, self._offsets[nearest_known], first), start - first, stop - first)
            records = [record for _, record in found]
        columns = as_columns(records, self.schema)
        return [
            make_row(record, self._format.column, self._where(start + i), columns[i])
            for i, record in enumerate(records)
        ]

    def _numbered(self, file: BinaryIO, offset: int, number: int) -> Iterator[Record]:
        """The format's records, with the row's number in its errors; *number* is the row at *offset*."""
        try:
            for record in self._format.records(file, offset):
                yield record
                number += 1
        except ConfigError as error:
            raise type(error)(f"{self._where(number)} {error}") from None

    def _where(self, number: int) -> str:
        return f"prompts.source: {self._format.path}: row {number + 1}"

    def _look(self) -> tuple[int, int]:
        stat = self._format.path.stat()
        return stat.st_size, stat.st_mtime_ns
