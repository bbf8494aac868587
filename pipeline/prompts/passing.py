"""What passes from a source to the manifests: which columns, of which types, Arrow to Arrow.

No value goes through Python, where a year 10000 or a nanosecond would be lost. A type passes unchanged if a parquet
file gives it back unchanged; dictionaries and views pass as the values that they hold, seconds as milliseconds and
days in milliseconds as days, because parquet has no such types. Whatever else it cannot hold is refused.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from pipeline.errors import ConfigError
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.source import Row, Rows

LEAVE_OUT = "list those that are to pass in prompts.columns.pass"
Schemas = Sequence[tuple[str, pa.Schema]]  # of each part of a source, with its name


def passing_schema(parts: Schemas, meaning: Meaning) -> pa.Schema:
    """Return the pass-through columns of all *parts*, in the order in which they come up, without metadata.

    Types that differ are unified as pyarrow's datasets do. Raises ``ConfigError``, naming part, column and types, for
    those that cannot be, for a type that no manifest can hold, and for binary columns (pictures, sound) that nobody
    asked for by name.
    """
    found: dict[str, tuple[pa.DataType, str]] = {}
    for where, schema in parts:
        for field in schema:
            if meaning.passes(field.name):
                type_ = _kept(field, where, named=meaning.passing is not None)
                known, at = found.get(field.name, (type_, where))
                found[field.name] = (_unified(field.name, (known, at), (type_, where)), at)
    names = found if meaning.passing is None else [name for name in meaning.passing if name in found]  # no rows: none
    return pa.schema([pa.field(name, found[name][0]) for name in names])


def check_steering(parts: Schemas, meaning: Meaning) -> None:
    """Raise ``ConfigError`` for a column that steers and is of a type that can never be right."""
    for where, schema in parts:
        for role, name in meaning.steers(schema.names).items():
            type_ = decoded(schema.field(name).type)
            if role == "prompt":
                if not (is_text(type_) or (kinds.is_null(type_) and len(parts) > 1)):
                    raise ConfigError(f"prompts.columns.prompt: column {name!r} of {where} is {type_}; expected text")
            elif not _may_steer(role, type_):
                expected = {"negative_prompt": "text", "size": "text or lists of two"}.get(role, "whole numbers")
                raise ConfigError(
                    f"prompts.columns.{role}: column {name!r} of {where} is {type_}; expected {expected}, "
                    f"or `prompts.columns.{role}: null` where it means something else"
                )


def is_text(type_: pa.DataType) -> bool:
    """Can a column of this type hold prompts?"""
    return bool(kinds.is_string(type_) or kinds.is_large_string(type_))


def fitted(rows: Sequence[Row], table: pa.Table, schema: pa.Schema) -> Rows:
    """Return *rows* with those columns of their *table* that *schema* names, as its types; absent ones are null.

    A value that does not fit, such as a whole number too large for the fraction that other files have in its column,
    or bytes that are no UTF-8, is null and the fault of its row.
    """
    faults: dict[int, str] = {}
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(len(table), field.type)]))
            continue
        column = table[field.name]
        try:
            columns.append(_cast(column, field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns.append(_cast_one_by_one(column, field, faults))
    return with_faults(rows, faults, pa.table(columns, schema=schema) if columns else no_columns(len(rows)))


def with_faults(rows: Sequence[Row], faults: Mapping[int, str], columns: pa.Table) -> Rows:
    """Return *rows* with the *faults* of their *columns*, by place; a row's own fault goes before."""
    return Rows(
        [row if row.fault or i not in faults else faulty(row, faults[i]) for i, row in enumerate(rows)], columns
    )


def faulty(row: Row, fault: str) -> Row:
    """Return *row* as one that cannot be drawn."""
    return replace(row, seed=None, negative_prompt=None, size=None, fault=fault)


def joined(parts: Sequence[Rows], schema: pa.Schema) -> Rows:
    """Return *parts*, of one schema, as one; none of them are no rows."""
    rows = [row for part in parts for row in part.rows]
    if not schema.names:
        return Rows(rows, no_columns(len(rows)))
    return Rows(rows, pa.concat_tables([schema.empty_table(), *(part.columns for part in parts)]))


def no_columns(rows: int) -> pa.Table:
    """Return a table of so many rows without columns."""
    return pa.table({"x": pa.nulls(rows)}).select([])


def _cast(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    column = column if column.type == type_ else column.cast(type_)
    column.validate(full=True)  # parquet files are not asked whether their texts are UTF-8
    return column


def _cast_one_by_one(column: pa.ChunkedArray, field: pa.Field, faults: dict[int, str]) -> pa.ChunkedArray:
    values = []
    for i in range(len(column)):
        try:
            values += _cast(column.slice(i, 1), field.type).chunks
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            faults.setdefault(i, f"column {field.name!r} does not fit {field.type}: {_line(error)}")
            values.append(pa.nulls(1, field.type))
    return pa.chunked_array(values, type=field.type)


def _kept(field: pa.Field, where: str, *, named: bool) -> pa.DataType:
    """Return the type that a manifest has for a source's column, of which the trial is a manifest of one null."""
    column = f"prompts.source: {where}: column {field.name!r} is {show_type(field.type)}"
    type_ = decoded(field.type)
    if not named and _is_binary(type_):
        raise ConfigError(f"{column}, and pictures and sound have no place in a manifest; {LEAVE_OUT}")
    try:
        buffer = io.BytesIO()
        nulls = pa.table([pa.nulls(1, type_)], names=[field.name]).take([0])
        pq.write_table(nulls, buffer)
        kept = pq.read_table(buffer).schema.field(0).type
        pa.nulls(1, type_).cast(kept)
    except pa.ArrowException as error:
        raise ConfigError(f"{column}, which a manifest cannot hold ({_line(error)}); {LEAVE_OUT}") from None
    return kept


def _unified(column: str, known: tuple[pa.DataType, str], new: tuple[pa.DataType, str]) -> pa.DataType:
    """Return the type that holds both; *known* and *new* are each a type and where it was found."""
    (a, at), (b, where) = known, new
    if a == b:
        return a
    try:
        if kinds.is_uint64(a) != kinds.is_uint64(b) and kinds.is_signed_integer(a) != kinds.is_signed_integer(b):
            raise pa.ArrowTypeError("no whole number holds both")  # Arrow would take int64
        if is_text(a) != is_text(b) and not (kinds.is_null(a) or kinds.is_null(b)):
            raise pa.ArrowTypeError("bytes are no text")  # Arrow would take bytes
        schemas = [pa.schema([("x", type_)]) for type_ in (a, b)]
        unified = pa.unify_schemas(schemas, promote_options="permissive").field("x").type
        for type_ in (a, b):
            pa.nulls(1, type_).cast(unified)
        return unified
    except pa.ArrowException:
        raise ConfigError(
            f"prompts.source: {where}: column {column!r} is {show_type(b)}, and {show_type(a)} in {at}; expected one "
            f"type, or the column left out: {LEAVE_OUT}"
        ) from None


def show_type(type_: pa.DataType) -> str:
    """Return a type as a message shows it."""
    text = "an object without fields ({})" if type_ == pa.struct([]) else str(type_)
    return text if len(text) <= 120 else text[:117] + "..."


def decoded(type_: pa.DataType) -> pa.DataType:
    """Return *type_* without what is mere encoding, at any depth: dictionaries, views, extensions not of Arrow's."""
    return _mapped(type_, _bare)


def _bare(type_: pa.DataType) -> pa.DataType:
    if kinds.is_dictionary(type_):
        return type_.value_type
    if kinds.is_string_view(type_):
        return pa.string()
    if kinds.is_binary_view(type_):
        return pa.binary()
    if isinstance(type_, pa.BaseExtensionType) and not type_.extension_name.startswith("arrow."):
        return type_.storage_type  # a worker may not know it
    return type_


def _mapped(type_: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return *type_* with each type in it, from the outside in, replaced by what *change* makes of it."""
    type_ = change(type_)

    def field(f: pa.Field) -> pa.Field:
        return f.with_type(_mapped(f.type, change))

    if kinds.is_struct(type_):
        return pa.struct([field(f) for f in type_])
    if kinds.is_map(type_):
        return pa.map_(field(type_.key_field), field(type_.item_field), type_.keys_sorted)
    if kinds.is_fixed_size_list(type_):
        return pa.list_(field(type_.value_field), type_.list_size)
    for is_kind, make in (
        (kinds.is_list, pa.list_),
        (kinds.is_large_list, pa.large_list),
        (kinds.is_list_view, pa.list_view),
        (kinds.is_large_list_view, pa.large_list_view),
    ):
        if is_kind(type_):
            return make(field(type_.value_field))
    return type_


def _is_binary(type_: pa.DataType) -> bool:
    """Has it, at any depth, bytes of any length? Those of a fixed size are hashes and numbers, and pass."""
    found = []

    def look(inner: pa.DataType) -> pa.DataType:
        found.append(kinds.is_binary(inner) or kinds.is_large_binary(inner))
        return inner

    _mapped(type_, look)
    return any(found)


def _may_steer(role: str, type_: pa.DataType) -> bool:
    """May values of this type be right for *role*, or be named as wrong, row by row?"""
    if role == "size" and (kinds.is_list(type_) or kinds.is_large_list(type_) or kinds.is_fixed_size_list(type_)):
        type_ = type_.value_type
    allowed = (is_text, kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_null, kinds.is_decimal)
    return any(is_kind(type_) for is_kind in allowed)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0].removesuffix(".")[:200]
