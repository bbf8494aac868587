"""The formats of text files: rows one after another, of which reading may start at the offset of any.

Each yields raw records; what cannot be a record is a text that says why, where the rows behind it can still be told.
"""

import codecs
import csv
import gzip
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from pipeline.errors import ConfigError
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.source import encoding_fault

JSON_SPACE = " \t\n\r"
BOM = b"\xef\xbb\xbf"
SPACES = re.compile(f"[{JSON_SPACE}]*")
CHARS = 1 << 16  # bytes of a JSON array read at once

Record = tuple[int, dict[str, Any] | str]  # the offset in bytes at which a row starts, and the row or its fault


class TextFile:
    """One file. ``start`` is the offset of the first row, in bytes of the text, which may lie compressed. ``names`` are
    the columns, or None where only the rows tell."""

    start = 0
    names: Sequence[str] | None = None

    def __init__(self, path: Path, meaning: Meaning):
        self.path, self.meaning = path, meaning

    def open(self) -> BinaryIO:
        """Open the text for reading at random; backwards, a compressed one is read again from its beginning."""
        return cast(BinaryIO, gzip.open(self.path)) if self.path.suffix.lower() == ".gz" else self.path.open("rb")

    def records(self, file: BinaryIO, offset: int) -> Iterator[Record]:
        """Yield the rows from *offset* on, where a row must start.

        Raises ``ConfigError``, without the row's number, where no further row can be told.
        """
        raise NotImplementedError

    def lines(self, file: BinaryIO, offset: int) -> Iterator[tuple[int, int, str]]:
        """Yield start and end in bytes, and the text with its line end, of each line from *offset* on. Bytes that are
        no UTF-8 come as the surrogates of ``surrogateescape``, by which their row is known."""
        file.seek(offset)
        for line in file:
            end = offset + len(line)
            yield offset, end, (line.removeprefix(BOM) if offset == 0 else line).decode(errors="surrogateescape")
            offset = end


class Txt(TextFile):
    """A prompt a line; blank lines are no rows."""

    def __init__(self, path: Path, meaning: Meaning):
        super().__init__(path, meaning)
        self.names = [meaning.prompt]

    def records(self, file: BinaryIO, offset: int) -> Iterator[Record]:
        for start, _, line in self.lines(file, offset):
            if line.strip():
                yield start, {self.meaning.prompt: line.strip()}


class JsonLines(TextFile):
    """An object a line; blank lines are no rows."""

    def records(self, file: BinaryIO, offset: int) -> Iterator[Record]:
        parse = json.JSONDecoder().raw_decode
        for start, _, line in self.lines(file, offset):
            text = line.strip(JSON_SPACE)
            try:
                record, end = parse(text)  # what json.loads does, without its 0.6 us of looking for white space
            except (ValueError, RecursionError):
                end = -1
            if end != len(text):
                if not line.strip():
                    continue
                yield start, _json_fault(line.rstrip(JSON_SPACE))
            else:
                yield start, record if isinstance(record, dict) else self.no_object()

    def no_object(self) -> str:
        """Say what a row of something else lacks."""
        return f'is no JSON object; expected such as {{"{self.meaning.prompt}": "a text"}}'


class JsonArray(JsonLines):
    """One array of objects, however it is laid out."""

    def __init__(self, path: Path, meaning: Meaning):
        super().__init__(path, meaning)
        with self.open() as file:
            head = file.read(CHARS)
            self.start = head.index(b"[") + 1

    def records(self, file: BinaryIO, offset: int) -> Iterator[Record]:
        file.seek(offset)
        text, position, ended, reading = "", 0, False, CHARS
        decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        parse = json.JSONDecoder().raw_decode
        after_row = False
        while True:
            blank = SPACES.match(text, position)
            assert blank is not None
            position, offset = blank.end(), offset + len(blank[0])  # white space is a byte each
            sign = text[position : position + 1]
            if after_row and sign == ",":
                position, offset, after_row = position + 1, offset + 1, False
                continue
            if sign == "]":
                if rest := (text[position + 1 :] + file.read(CHARS).decode(errors="replace")).strip():
                    raise ConfigError(f"would stand behind the end of the array, where {rest[:20]!r} is; expected one")
                return
            if sign and after_row:
                raise ConfigError(f"is followed by {sign!r}; expected a comma or the end of the array")
            try:
                record, end = parse(text, position)
            except (ValueError, RecursionError) as error:
                if ended:
                    raise ConfigError(f"is not valid JSON: {_reason(error)}") from None
                end = len(text)
            if end == len(text) and not ended:  # there may be more of it
                data = file.read(reading)
                text, position, ended, reading = text[position:] + decode(data, not data), 0, not data, 2 * reading
                continue
            yield offset, record if isinstance(record, dict) else self.no_object()
            offset += len(text[position:end].encode(errors="surrogateescape"))
            position, after_row, reading = end, True, CHARS


class QuotingError(ConfigError):
    """Quotation marks that quote nothing."""


class Csv(TextFile):
    """Fields in quotes may hold delimiters and line ends; ``quoted=False`` takes quotation marks as they are.

    Every value is text.
    """

    def __init__(self, path: Path, meaning: Meaning, delimiter: str, *, quoted: bool = True):
        super().__init__(path, meaning)
        self.delimiter = delimiter
        self.quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        self.names: list[str] = []
        with self.open() as file:
            rows = self._rows(file, 0)
            try:
                self.names = next(rows, (0, []))[1]
                if (fault := encoding_fault("".join(self.names))) is not None:
                    self.names = []
                    raise ConfigError(fault)
                first = next(rows, None)
                self.start = file.tell() if first is None else first[0]
            except ConfigError as error:
                where = "row 1" if self.names else "the header"
                raise type(error)(f"prompts.source: {path}: {where} {error}") from None

    def records(self, file: BinaryIO, offset: int) -> Iterator[Record]:
        for start, fields in self._rows(file, offset):
            if len(fields) != len(self.names):
                yield start, f"has {len(fields)} fields; expected {len(self.names)} ({', '.join(self.names)})"
            else:
                yield start, dict(zip(self.names, fields, strict=True))

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
                suffix = Path(self.path.name.lower().removesuffix(".gz")).suffix
                raise QuotingError(f"is not valid {suffix[1:].upper()}: {error}") from None
            if fields is None:
                return
            if fields:
                yield start, fields
            start = read


def json_file(path: Path, meaning: Meaning) -> TextFile:
    """Return a .json file as what it is: an array of objects, or an object a line."""
    file = JsonLines(path, meaning)
    with file.open() as opened:
        head = opened.read(CHARS)
    is_array = head.removeprefix(BOM).lstrip(JSON_SPACE.encode()).startswith(b"[")
    return JsonArray(path, meaning) if is_array else file


def _json_fault(line: str) -> str:
    try:
        json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"is not valid JSON: {_reason(error)}"
    raise AssertionError("raw_decode refused what loads takes")


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
