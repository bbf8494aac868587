"""The contract of a prompt source: a length, random access by row, a fingerprint of its content.

A source is opened where the plan is made and nowhere else; workers get finished samples. It may be pickled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from pipeline.config.problem import Problem, show
from pipeline.config.validate import check_size
from pipeline.errors import ConfigError, nearest

# Columns that speak to the generator. All others, save the prompt's own, pass through to the manifest.
OWN_COLUMNS = ("seed", "negative_prompt", "size", "width", "height")
OWN = frozenset(OWN_COLUMNS)


class RowError(ConfigError):
    """One row that cannot be used; others of its source can be."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prompt. ``seed``, ``negative_prompt`` and ``size`` (width, height; pixels) are None where the run decides."""

    prompt: str
    seed: int | None = None
    negative_prompt: str | None = None
    size: tuple[int, int] | None = None
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What rows ask for of their own, each with the first row (from 0) that does: ``sizes`` (width, height) in pixels,
    and a ``negative`` prompt (None: no row does)."""

    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    negative: int | None = None

    def of_first(self, rows: int) -> "Wishes":
        """Return what the first *rows* rows ask for."""
        sizes = {size: row for size, row in self.sizes.items() if row < rows}
        return Wishes(sizes=sizes, negative=None if self.negative is None or self.negative >= rows else self.negative)


class Source(Protocol):
    """Rows 0 to ``len(source)`` in a fixed order. ``fingerprint`` names their content, not their place.

    ``schema`` are the pass-through columns, the same for every row: a row without one has None there. ``wishes`` are as
    far as opening has shown them: a source whose rows are read only when a shard asks for them knows of none.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def wishes(self) -> Wishes: ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> list[Row]:
        """Return rows *start* to *stop* (exclusive). Raises ``RowError`` for one that cannot be used, and another
        ``ConfigError`` where the source cannot be read."""
        ...

    def read_blocks(self, blocks: Sequence[range]) -> "list[list[Row | RowError]]":
        """Return the rows of each of *blocks*, ascending ranges of rows that do not overlap.

        A row that cannot be used is an error in its place. Raises ``ConfigError`` where the source cannot be read.
        """
        ...


def one_by_one(source: Source, blocks: Sequence[range]) -> list[list[Row | RowError]]:
    """``read_blocks`` of a source for which reading at a few places at once would be no faster."""

    def read(start: int, stop: int) -> list[Row | RowError]:
        try:
            return list(source.read(start, stop))
        except RowError as error:
            return [error] if stop - start == 1 else [row for i in range(start, stop) for row in read(i, i + 1)]

    return [read(block.start, block.stop) for block in blocks]


def is_plain(record: Mapping[str, Any], column: str) -> bool:
    """Has this a prompt and nothing else for the generator? Such rows need no ``make_row`` to be found good."""
    prompt = record.get(column)
    return isinstance(prompt, str) and bool(prompt.strip()) and OWN.isdisjoint(record)


def make_row(record: Mapping[str, Any], column: str, where: str, columns: dict[str, Any]) -> Row:
    """Make the row of a raw *record*, with its pass-through *columns*. *where* names it, as in "prompts.csv: row 12".

    Raises ``RowError`` for an empty prompt, and for a seed or size of its own that cannot be used.
    """
    prompt = record.get(column)
    if not isinstance(prompt, str) or not prompt.strip():
        if column not in record:
            has = f"{nearest(column, record)}; it has {', '.join(record) or 'none'}"
            raise RowError(f"{where} has no column {column!r}{has} (see prompts.column)")
        what = "an empty prompt" if prompt is None or isinstance(prompt, str) else show(prompt)
        raise RowError(f"{where} has {what} in column {column!r}; expected a text")
    negative = record.get("negative_prompt")
    return Row(
        prompt=prompt,
        seed=_seed(record.get("seed"), where),
        negative_prompt=None if negative in (None, "") else str(negative),
        size=_size(record, where),
        columns=columns,
    )


def pass_through(schema: pa.Schema, column: str) -> pa.Schema:
    """Return the fields of *schema* that pass through, in its order and without metadata.

    Binary columns (pictures, sound) do not: a manifest is no place for them. Dictionaries become their values' type.
    """
    fields = []
    for f in schema:
        if f.name in (column, *OWN_COLUMNS) or _is_binary(f.type):
            continue
        type_ = f.type.value_type if pa.types.is_dictionary(f.type) else f.type
        fields.append(pa.field(f.name, pa.string() if pa.types.is_null(type_) else type_))
    return pa.schema(fields)


def is_text(type_: pa.DataType) -> bool:
    """Can a column of this type hold prompts?"""
    values = type_.value_type if pa.types.is_dictionary(type_) else type_
    return pa.types.is_string(values) or pa.types.is_large_string(values) or pa.types.is_string_view(values)


def _is_binary(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(_is_binary(f.type) for f in type_)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return _is_binary(type_.value_type)
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_)


def _seed(value: Any, where: str) -> int | None:
    if value in (None, "") or value != value:  # pandas writes a missing whole number as NaN, and the others as floats
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    if isinstance(value, bool) or not text.isdecimal() or int(text) >= 2**63:
        raise RowError(f"{where}: seed is {value!r}; expected a whole number from 0 to 2^63 - 1")
    return int(text)


def _size(record: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    """Read ``size`` ("64x64" or [64, 64]) or ``width`` and ``height``."""
    size, sides = record.get("size"), (record.get("width"), record.get("height"))
    if size in (None, "") and all(side in (None, "") for side in sides):
        return None
    given: Any = sides if size in (None, "") else size.lower().split("x") if isinstance(size, str) else size
    try:
        width, height = (int(side) for side in given)
        return check_size("size", width, height)
    except Problem as problem:
        raise RowError(f"{where}: {problem.key} {problem.message}") from None
    except (TypeError, ValueError):
        shown = repr(size) if size not in (None, "") else f"width {sides[0]!r} and height {sides[1]!r}"
        raise RowError(f"{where}: size is {shown}; expected such as '64x64' or [64, 64]") from None
