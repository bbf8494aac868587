"""Rows of Arrow tables, as parquet and HF datasets give them: what steers becomes Python, what passes does not."""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.prompts.meaning import Meaning
from pipeline.prompts.passing import decoded, fitted
from pipeline.prompts.source import Looked, Row, Rows, make_row

WHOLE = 1_000_000  # rows: sources of so many are looked at whole before a run
SAMPLED = 1 << 17  # rows looked at of a longer one
PLACES = 32  # at so many places of it
VISIBLE = r"[^\p{Z}\p{Cc}\p{Cf}]"  # a character that is to be seen: a text without any is blank


def table_rows(table: pa.Table, meaning: Meaning, schema: pa.Schema) -> Rows:
    """Return the rows of a *table* that has the columns of *meaning* and *schema*, as far as the source has them."""
    return fitted(_steered(table, meaning), table, schema)


def look_at(table: pa.Table, first: int, meaning: Meaning, looked: Looked, where: Callable[[int], str]) -> None:
    """Take the rows of *table*, of which row *first* is the first, into account; only those that are not plain prompts
    become Python's."""
    looked.rows += len(table)
    own = [name for role, name in meaning.steers(table.column_names).items() if role != "prompt"]
    notable = _dubious(table[meaning.prompt])
    for name in own:
        notable = pc.or_(notable, pc.is_valid(table[name]))
    places = pc.indices_nonzero(notable)
    names = [meaning.prompt, *own]
    chosen = pa.table([table[name].cast(decoded(table[name].type)).take(places) for name in names], names=names)
    for place, row in zip(places.to_pylist(), _steered(chosen, meaning), strict=True):
        looked.add(first + place, row, where)


def sampled(rows: int, parts: Sequence[range]) -> list[range]:
    """Return which of *parts* to look at, and how far into each, where *rows* are too many to look at all."""
    if rows <= WHOLE:
        return list(parts)
    places = min(PLACES, len(parts))
    chosen = [parts[i * (len(parts) - 1) // max(1, places - 1)] for i in range(places)]
    return [range(part.start, min(part.stop, part.start + SAMPLED // places)) for part in chosen]


def _steered(table: pa.Table, meaning: Meaning) -> list[Row]:
    names = list(meaning.steers(table.column_names).values())
    columns = [_values(table[name]) for name in names]
    return [make_row(dict(zip(names, values, strict=True)), meaning) for values in zip(*columns, strict=True)]


def _dubious(prompts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Say of which prompts more than a look at them is needed to find them good."""
    prompts = prompts.cast(decoded(prompts.type))
    try:
        prompts.validate(full=True)
    except pa.ArrowInvalid:  # some are no UTF-8, and the search below would not hear of it
        return pa.chunked_array([pa.repeat(True, len(prompts))])
    if pa.types.is_null(prompts.type):
        return pa.chunked_array([pa.repeat(True, len(prompts))])
    return pc.fill_null(pc.invert(pc.match_substring_regex(prompts, VISIBLE)), True)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values as Python's; bytes that are no UTF-8 come as the surrogates of ``surrogateescape``."""
    column = column.cast(decoded(column.type))
    try:
        values: list[Any] = column.to_pylist()
        return values
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "surrogateescape") for value in raw]
