"""Pass-through columns: their types, inferred once over a whole source, so that every shard has the same."""

from collections.abc import Set as AbstractSet
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError

CHUNK = 4096  # records looked at together


class ColumnTypes:
    """Fed record by record; ``schema()`` is the type of each column over all of them, in order of first appearance.

    Whole numbers and fractions make a double, nulls fit anywhere, and numbers beside text are refused. The columns
    *skipped* may hold anything.
    """

    def __init__(self, name: str, skipped: AbstractSet[str]):
        self._name, self._skipped = name, skipped
        self._types: dict[str, pa.DataType] = {}
        self._chunk: list[dict[str, Any]] = []
        self._seen = 0

    def add(self, record: dict[str, Any]) -> None:
        """Take one record into account. Raises ``ConfigError`` for a column of two types."""
        self._chunk.append(record)
        if len(self._chunk) == CHUNK:
            self._infer()

    def schema(self) -> pa.Schema:
        """Return the columns seen so far."""
        self._infer()
        return pa.schema(list(self._types.items()))

    def _infer(self) -> None:
        for column in dict.fromkeys(key for record in self._chunk for key in record if key not in self._skipped):
            values = [record.get(column) for record in self._chunk]
            known = self._types.get(column, pa.null())
            try:
                self._types[column] = _unified(known, pa.array(values).type)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
                rows = f"rows {self._seen + 1} to {self._seen + len(self._chunk)}"
                reason = " ".join(str(error).split())
                raise ConfigError(f"{self._name}: {rows}: column {column!r} has no single type: {reason}") from None
        self._seen += len(self._chunk)
        self._chunk.clear()


def as_columns(records: list[dict[str, Any]], schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the fields of *schema* of each record, as that type: 1 becomes 1.0 where others have fractions."""
    if not schema.names:
        return [{} for _ in records]
    return pa.Table.from_pylist(records, schema=schema).to_pylist()


def _unified(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    schemas = [pa.schema([("x", type_)]) for type_ in (a, b)]
    return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
