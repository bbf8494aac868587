"""The manifest of a shard: one row per planned sample, whatever became of it, as parquet with a fixed schema.

The schema has a version, ``SCHEMA``, which stands in the file's metadata (key ``lacuna.manifest``; a file without is of
version 1). Columns are only ever added: a new one has ``since``, and the value that older manifests are taken to have.
Behind them come those of quality (``audit.quality``), where a run asks for any, and then those that pass through.

Knows nothing of stores. The same rows give the same bytes on one version of pyarrow: explicit schema, sorted by key,
no timestamps. Scores are lists of (name, score) rather than maps, which HF ``datasets`` cannot read.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.audit.verdict import Judgement
from pipeline.errors import ConfigError, CorpusError

BAD_ROW = "bad row: "  # before the fault of a prompt's row, in ``reason``
SCHEMA = 3  # of manifests that are written now
SCHEMA_KEY = b"lacuna.manifest"
NO_COLUMNS = pa.schema([])
ROW_GROUP = 16_384  # rows: one group for a usual shard, whose page index still lets single rows be found
PIECE = 1_024  # rows of columns that are read piece by piece


class Status(StrEnum):
    """What became of a planned sample. Only ``ok`` may be trained on."""

    ok = "ok"
    quarantined = "quarantined"
    dropped = "dropped"
    failed = "failed"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One picture drawn for a sample: its seed, what it was judged to be and why, and its score per concept."""

    seed: int
    status: Status
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One sample of the manifest.

    ``seed`` is the one used at last. ``width`` and ``height`` are pixels. ``sha256`` (hex), ``offset`` and ``length``
    (bytes) are of the encoded picture inside its tar, the training tar for ``ok`` and the quarantine tar of the
    evidence for ``quarantined``; None where no picture is kept. They are filled in when the tar is written.
    ``reason`` names what is wrong with the picture: concepts joined by commas, or nan, blank, excluded; or, behind
    ``BAD_ROW``, why the prompt's row cannot be drawn. ``scores`` are what the judges together give and ``judged`` what
    each detector gave, both of the picture used at last. ``tokens_read`` are those of the prompt that the text encoder
    read, special ones aside, ``tokens_unread`` those that it did not; None where it was given none of it. ``quality``
    are the values of the columns of quality, by name; they are written here, and read as columns alone.
    """

    key: str
    shard: int
    prompt: str
    caption: str
    seed: int
    width: int
    height: int
    status: Status
    negative_prompt: str = ""
    reason: str = ""
    gates: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    judged: tuple[Judgement, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    sha256: str | None = None
    offset: int | None = None
    length: int | None = None
    tokens_read: int | None = None
    tokens_unread: int | None = None
    quality: Mapping[str, Any] = field(default_factory=dict)

    @property
    def found(self) -> tuple[str, ...]:
        """The concepts that the audit found in the picture used at last."""
        return found(self.reason, self.scores)


NO_CAPTION = "no caption"  # the reason of a dropped sample of whose prompt nothing may be trained on


def found(reason: str, scores: dict[str, float]) -> tuple[str, ...]:
    """Return the concepts that a reason names; reasons that are faults (nan, blank) name none."""
    return tuple(name for name in reason.split(",") if name in scores)


_SCORES = pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("score", pa.float32())]))
_JUDGED = pa.list_(
    pa.struct(
        [
            pa.field("detector", pa.string()),
            pa.field("concept", pa.string()),
            pa.field("score", pa.float32()),
            pa.field("box", pa.list_(pa.float32())),  # x0, y0, x1, y1 in pixels; null where there is none
        ]
    )
)
_ATTEMPTS = pa.list_(
    pa.struct(
        [
            pa.field("seed", pa.int64()),
            pa.field("status", pa.string()),
            pa.field("reason", pa.string()),
            pa.field("scores", _SCORES),
        ]
    )
)


@dataclass(frozen=True)
class Column:
    """One column of the schema: the version ``since`` which it is there, and what a manifest without it would say."""

    field: pa.Field
    since: int = 1
    default: Any = None


COLUMNS = (
    Column(pa.field("key", pa.string(), nullable=False)),
    Column(pa.field("shard", pa.int32(), nullable=False)),
    Column(pa.field("prompt", pa.string(), nullable=False)),
    Column(pa.field("negative_prompt", pa.string(), nullable=False)),
    Column(pa.field("caption", pa.string(), nullable=False)),
    Column(pa.field("seed", pa.int64(), nullable=False)),
    Column(pa.field("width", pa.int32(), nullable=False)),
    Column(pa.field("height", pa.int32(), nullable=False)),
    Column(pa.field("status", pa.string(), nullable=False)),
    Column(pa.field("reason", pa.string(), nullable=False)),
    Column(pa.field("sha256", pa.string())),
    Column(pa.field("offset", pa.int64())),
    Column(pa.field("length", pa.int64())),
    Column(pa.field("gates", _SCORES)),
    Column(pa.field("scores", _SCORES)),
    Column(pa.field("attempts", _ATTEMPTS)),
    Column(pa.field("tokens_read", pa.int32()), since=3),
    Column(pa.field("tokens_unread", pa.int32()), since=3),
    Column(pa.field("judged", _JUDGED), since=3, default=[]),
)
_NAMES = frozenset(column.field.name for column in COLUMNS)


def schema_of(corpus_format: int) -> int:
    """Return the version of the schema that manifests of a corpus of this format are written in."""
    return 1 if corpus_format == 1 else SCHEMA


def schema(columns: pa.Schema | None = None, version: int = SCHEMA, quality: pa.Schema = NO_COLUMNS) -> pa.Schema:
    """Return a *version* of the manifest's schema, with those of *quality* and pass-through *columns* at its end.

    One of the latter that bears the name of a field of ours is called as ``passed_names`` says.
    """
    own = [*(column.field for column in COLUMNS if column.since <= version), *quality]
    metadata = {SCHEMA_KEY: str(version).encode()} if version > 1 else None
    if columns is None:
        return pa.schema(own, metadata)
    names = passed_names(columns.names, quality.names)
    passed = [f.with_name(name).remove_metadata() for f, name in zip(columns, names, strict=True)]
    return pa.schema(own + passed, metadata)


def check_quality(quality: pa.Schema) -> None:
    """Raise ``ConfigError`` for columns of *quality* that the manifest has itself."""
    if taken := [name for name in quality.names if name in _NAMES]:
        raise ConfigError(f"audit.quality: a manifest has columns {', '.join(taken)} of its own; expected other names")


def passed_names(columns: Sequence[str], quality: Sequence[str] = ()) -> list[str]:
    """Return what pass-through *columns* are called in a manifest: ``source_NAME`` where it has a NAME of its own,
    those of *quality* among them."""
    own = _NAMES.union(quality)
    taken, names = {*own, *columns}, []
    for name in columns:
        if name in own:
            while name in taken:
                name = f"source_{name}"
            taken.add(name)
        names.append(name)
    return names


def write_manifest(
    rows: Sequence[ManifestRow],
    columns: pa.Table | None = None,
    version: int = SCHEMA,
    quality: pa.Schema = NO_COLUMNS,
) -> bytes:
    """Return the parquet file of *rows*, sorted by key, in a *version* of the schema; the same rows, the same bytes.

    *columns* pass through, a row for each of *rows*, and by no way through Python. Of *quality* a row that has no value
    has null, as where it is NaN.
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i].key)
    table = pa.Table.from_pylist([_record(rows[i]) for i in order], schema=schema(version=version))
    for f in quality:
        values = [rows[i].quality.get(f.name) for i in order]
        table = table.append_column(f, pa.array(values, f.type, from_pandas=True))
    if columns is not None:
        whole = schema(columns.schema, version, quality)
        # Pages, and with them the bytes, would depend on the chunks in which the columns were read.
        table = pa.table([*table.columns, *columns.take(order).combine_chunks().columns], schema=whole)
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=ROW_GROUP,
        compression="zstd",
        compression_level=3,
        use_dictionary=True,
        write_page_index=True,
        sorting_columns=[pq.SortingColumn(0)],
    )
    return buffer.getvalue()


def read_manifest(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a manifest of any version as a table, with all columns or the given ones, in no certain order.

    Of this schema's columns those that the manifest lacks are there too. ``CorpusError`` where the bytes are not
    parquet.
    """
    try:
        # On one thread: a manifest is small, and arrow's threads that are still at work on a Python file when the
        # interpreter ends abort the process ("terminate called without an active exception").
        file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        has = set(file.schema_arrow.names)
        there = None if columns is None else [name for name in columns if name in has]
        table = file.read(columns=there, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorpusError(f"not a readable manifest: {str(error).splitlines()[0]}") from error
    return with_columns(table, [column for column in COLUMNS if columns is None or column.field.name in columns])


def read_some(data: bytes, columns: Sequence[str], rows: np.ndarray) -> pa.Table:
    """Return *columns* of the rows of a manifest that have the numbers *rows*, ascending. Of large columns no more is
    in memory than these, and ``PIECE`` rows more."""
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    parts, first = [], 0
    for piece in file.iter_batches(PIECE, columns=list(columns), use_threads=False):
        own = rows[(rows >= first) & (rows < first + len(piece))] - first
        parts.append(piece.take(pa.array(own, pa.int64())))
        first += len(piece)
    return pa.Table.from_batches(parts, pa.schema([file.schema_arrow.field(name) for name in columns]))


def with_columns(table: pa.Table, columns: Sequence[Column]) -> pa.Table:
    """Return *table* with those of *columns* that it lacks, each filled with its default."""
    for column in columns:
        if column.field.name not in table.column_names:
            value = pa.scalar(column.default, column.field.type)
            table = table.append_column(column.field, pa.repeat(value, len(table)))
    return table


def lacking(data: bytes, columns: pa.Schema) -> list[str]:
    """Return those of *columns* that a manifest has not, or of another type."""
    there = pq.read_schema(pa.BufferReader(data))
    return [f.name for f in columns if f.name not in there.names or there.field(f.name).type != f.type]


def read_rows(data: bytes) -> list[ManifestRow]:
    """Return the rows of a manifest, in the order of their keys; what passed through stays where it is."""
    return rows_of(read_manifest(data, sorted(_NAMES)))


def rows_of(manifest: pa.Table) -> list[ManifestRow]:
    """Return the rows of a manifest that was read with all columns of this schema."""
    return [_row(record) for record in manifest.select(sorted(_NAMES)).to_pylist()]


def _record(row: ManifestRow) -> dict[str, Any]:
    return {
        "key": row.key,
        "shard": row.shard,
        "prompt": row.prompt,
        "negative_prompt": row.negative_prompt,
        "caption": row.caption,
        "seed": row.seed,
        "width": row.width,
        "height": row.height,
        "status": str(row.status),
        "reason": row.reason,
        "sha256": row.sha256,
        "offset": row.offset,
        "length": row.length,
        "tokens_read": row.tokens_read,
        "tokens_unread": row.tokens_unread,
        "gates": _pairs(row.gates),
        "scores": _pairs(row.scores),
        "attempts": [
            {"seed": a.seed, "status": str(a.status), "reason": a.reason, "scores": _pairs(a.scores)}
            for a in row.attempts
        ],
        "judged": [
            {"detector": j.detector, "concept": j.concept, "score": j.score, "box": None if j.box is None else [*j.box]}
            for j in row.judged
        ],
    }


def _row(record: dict[str, Any]) -> ManifestRow:
    own = {name: record[name] for name in _NAMES - {"status", "gates", "scores", "attempts", "judged"}}
    return ManifestRow(
        **own,
        status=Status(record["status"]),
        gates=_scores(record["gates"]),
        scores=_scores(record["scores"]),
        attempts=tuple(
            Attempt(seed=a["seed"], status=Status(a["status"]), reason=a["reason"], scores=_scores(a["scores"]))
            for a in record["attempts"]
        ),
        judged=tuple(
            Judgement(detector=j["detector"], concept=j["concept"], score=j["score"], box=j["box"] and tuple(j["box"]))
            for j in record["judged"]
        ),
    )


def _pairs(scores: dict[str, float]) -> list[dict[str, Any]]:
    return [{"name": name, "score": score} for name, score in sorted(scores.items())]


def _scores(pairs: list[dict[str, Any]]) -> dict[str, float]:
    return {pair["name"]: pair["score"] for pair in pairs}
