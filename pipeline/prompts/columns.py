"""Pass-through columns of text files: their types, inferred once over a whole source, so that every shard has the same.

What JSON says becomes an Arrow table here and nothing else after it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.types as kinds

from pipeline.config.problem import show
from pipeline.errors import ConfigError
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.passing import LEAVE_OUT, no_columns
from pipeline.prompts.source import encoding_fault

CHUNK = 4096  # records looked at together
NOT_ARROW = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)


class ColumnTypes:
    """Fed record by record; ``schema()`` is the type of each column over all of them, in order of first appearance.

    Whole numbers and fractions make a double, whole numbers up to 2^64 - 1 an uint64, nulls fit anywhere, and numbers
    beside text are refused. Columns that do not pass may hold anything. ``where`` names a row, counted from 0;
    ``faults`` are of rows, not known as bad, with a text that is none. ``names`` are all columns.
    """

    def __init__(self, meaning: Meaning, where: Callable[[int], str]):
        self._passes, self._where = meaning.passes, where
        self._types: dict[str, pa.DataType] = {}
        self._negative: dict[str, tuple[int, int]] = {}  # of columns of whole numbers: one below 0, and its row
        self._chunk: list[dict[str, Any]] = []
        self._rows: list[tuple[int, bool]] = []
        self.faults: dict[int, str] = {}
        self.names: dict[str, None] = {}

    def add(self, row: int, record: dict[str, Any], bad: bool) -> None:
        """Take one record into account. Raises ``ConfigError`` for a column of two types."""
        self._chunk.append(record)
        self._rows.append((row, bad))
        if len(self._chunk) == CHUNK:
            self._infer()

    def schema(self) -> pa.Schema:
        """Return the columns seen so far; those of nulls alone, of which nothing is known, as text."""
        self._infer()
        return pa.schema(
            [(name, pa.string() if kinds.is_null(type_) else type_) for name, type_ in self._types.items()]
        )

    def _infer(self) -> None:
        names = dict.fromkeys(key for record in self._chunk for key in record)
        self.names |= names
        for column in filter(self._passes, names):
            if encoding_fault(column):
                raise ConfigError(f"prompts.source: {self._where(self._rows[0][0])}: the name {column!r} is no text")
            values: list[Any] = [record.get(column) for record in self._chunk]
            try:
                type_ = self._with(column, values)
            except UnicodeEncodeError:
                for i, value in enumerate(values):
                    if (fault := _text_fault(column, value)) is not None:
                        values[i] = None
                        if not self._rows[i][1]:
                            self.faults[self._rows[i][0]] = fault
                type_ = self._with(column, values)
            if type_ is None:
                self._refuse(column, values)
            self._types[column] = type_
            if kinds.is_int64(type_) and column not in self._negative:
                below = _first_negative(values)
                if below is not None:
                    self._negative[column] = values[below], self._rows[below][0]
        self._chunk.clear()
        self._rows.clear()

    def _with(self, column: str, values: list[Any]) -> pa.DataType | None:
        """Return the type of *column* with *values* in it too, or None where there is none."""
        known = self._types.get(column, pa.null())
        try:
            array = pa.array(values)
        except OverflowError:  # perhaps 2^64 - 1, which is not looked for
            if not all(value is None or (type(value) is int and 0 <= value < 2**64) for value in values):
                return None
            array = pa.array(values, pa.uint64())
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return None
        if {known, array.type} == {pa.int64(), pa.uint64()}:  # Arrow would take int64
            return None if column in self._negative or _first_negative(values) is not None else pa.uint64()
        try:
            schemas = [pa.schema([("x", type_)]) for type_ in (known, array.type)]
            return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
        except pa.ArrowException:
            return None

    def _refuse(self, column: str, values: list[Any]) -> NoReturn:
        """Name the first of *values* that does not go with those before it."""
        low, high = 0, len(values)  # the first ``low`` go together, the first ``high`` do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._with(column, values[:middle]) is None else (middle, high)
        value, before = values[low], self._with(column, values[:low])
        below = _first_negative(values[:low])
        here = (0, 0) if below is None else (values[below], self._rows[below][0])
        negative, row = self._negative.get(column, here)
        if isinstance(value, int) and value >= 2**63 and negative < 0:
            why = f"{self._where(row)} has {negative}, and no type of whole numbers holds both"
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            why = "no type of whole numbers holds it"
        elif before is None or kinds.is_null(before):
            why = "no type holds it"
        else:
            why = f"those before it are {before}; expected one type"
        raise ConfigError(
            f"prompts.source: {self._where(self._rows[low][0])}: column {column!r} has {show(value)}, but {why}; "
            f"write it as text, or {LEAVE_OUT}"
        )


def as_table(records: Sequence[Mapping[str, Any] | None], schema: pa.Schema) -> tuple[pa.Table, dict[int, str]]:
    """Return the columns of *schema* of each record as those types: 1 becomes 1.0 where others have fractions.

    A record that does not fit has nulls in the table and is among the faults, by its place; one that is None has nulls.
    """
    if not schema.names:
        return no_columns(len(records)), {}
    found = [{} if record is None else dict(record) for record in records]
    try:
        return pa.Table.from_pylist(found, schema=schema), {}
    except (*NOT_ARROW, UnicodeEncodeError):
        faults = {}
        for i, record in enumerate(found):
            if (fault := _fault(record, schema)) is not None:
                faults[i], found[i] = fault, {}
        return pa.Table.from_pylist(found, schema=schema), faults


def _fault(record: Mapping[str, Any], schema: pa.Schema) -> str | None:
    for field in schema:
        value = record.get(field.name)
        if (fault := _text_fault(field.name, value)) is not None:
            return fault
        try:
            pa.array([value], field.type)
        except NOT_ARROW:
            return f"column {field.name!r} is {show(value)}, which does not fit {field.type}"
    return None


def _first_negative(values: Sequence[Any]) -> int | None:
    return next((i for i, value in enumerate(values) if isinstance(value, int) and value < 0), None)


def _text_fault(column: str, value: Any) -> str | None:
    try:
        pa.array([value])
    except UnicodeEncodeError as error:
        return f"column {column!r} {encoding_fault(error.object)}"
    except NOT_ARROW:
        pass
    return None
