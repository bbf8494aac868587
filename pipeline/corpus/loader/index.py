"""Which samples a reader has and where they lie: arrays on this machine's disk, mapped into memory, never read whole.

They are made once of the manifests, for a snapshot of the corpus and a predicate, and shared by all processes of the
machine; 16 bytes a row, and a file for each column that was asked for. A row is a number from 0, in the order of shards
and keys. Rows of one shard that lie near each other form a *block*: what is read together.
"""

import hashlib
import json
import os
import shutil
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.damage import repair_command, sound_manifest
from pipeline.corpus.manifest import Status, read_manifest
from pipeline.corpus.stores import Store
from pipeline.errors import ConfigError, CorpusError, StoreError
from pipeline.files import held
from pipeline.parallel import in_parallel

SPAN = 5 << 20  # bytes of a block, within a half, where there are as many: what one request asks for
GAP = 512 << 10  # bytes that are read for nothing rather than asked around, as a request takes their time too
KEPT = 30 * 86400.0  # seconds after which an index that nobody has opened is removed
VERSION = 1  # of the files below
DONE = "done"  # there where the arrays are whole
_ARRAYS = ("rows.bin", "blocks.bin", "shards.bin")

ROW = np.dtype([("offset", "<i8"), ("length", "<u4"), ("height", "<u2"), ("width", "<u2")])
# ``row`` is the first of a block; ``start`` and ``end`` are bytes of its shard's tar; ``shard`` counts in SHARD.
BLOCK = np.dtype([("row", "<i8"), ("start", "<i8"), ("end", "<i8"), ("shard", "<i4")])
SHARD = np.dtype([("row", "<i8"), ("number", "<i8"), ("tar", "S32")])  # ``tar``: the head of its sha256
_NEEDED = ("status", "offset", "length", "height", "width")


class Predicate(NamedTuple):
    """Which rows are read: an expression, the columns that it reads, and the text that it was made of.

    The text is what tells predicates apart: Arrow's own of an expression leaves out the middle of a long list.
    """

    expression: pc.Expression
    columns: Sequence[str]
    text: str


class Index:
    """An opened index. ``rows``, ``blocks`` and ``shards`` are memory-mapped; pickled, it is opened anew."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows, self.blocks, self.shards = (
            _mapped(folder / name, dtype) for name, dtype in zip(_ARRAYS, (ROW, BLOCK, SHARD), strict=True)
        )
        self._columns: dict[str, _Column] = {}

    def __reduce__(self) -> Any:
        return Index, (self.folder,)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fingerprint(self) -> str:
        """Of the snapshot and the predicate: equal where the same rows have the same numbers."""
        return self.folder.name

    def block_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the blocks (int64) that *rows* lie in."""
        return np.searchsorted(self.blocks["row"], rows, side="right") - 1

    def shard_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the places in ``shards`` (int64) of *rows*."""
        return np.searchsorted(self.shards["row"], rows, side="right") - 1

    def values(self, column: str, rows: np.ndarray) -> list[Any]:
        """Return what the manifests have in *column* for *rows*, as Python objects."""
        if column not in self._columns:
            self._columns[column] = _Column(self.folder / _file_of(column))
        shards = self.shard_of(rows)
        return self._columns[column].values(shards, rows - self.shards["row"][shards])


class _Column:
    """One column: an Arrow file of a batch a shard."""

    def __init__(self, path: Path):
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        self.batch = lru_cache(maxsize=1024)(self._batch)

    def _batch(self, shard: int) -> pa.Array:
        return self._file.get_batch(shard).column(0)

    def values(self, shards: np.ndarray, rows: np.ndarray) -> list[Any]:
        return [self.batch(s)[r].as_py() for s, r in zip(shards.tolist(), rows.tolist(), strict=True)]


def open_index(
    store: Store,
    digest: str,
    records: Sequence[CommitRecord],
    where: Predicate | None,
    columns: Sequence[str],
    home: Path,
) -> Index:
    """Open the index of *records* under the folder *home*; what is not there yet is made of their manifests.

    *digest* is the corpus's identity. Raises ``ConfigError`` where Arrow cannot tell what *where* is of a row,
    ``CorpusError`` where a manifest is damaged, ``StoreError`` where *home* cannot be written.
    """
    snapshot = [(record.shard, _sha256(record, layout.manifest(record.shard))) for record in records]
    facts = [VERSION, SPAN, GAP, digest, snapshot, where.text if where else ""]
    folder = home / "index" / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    try:
        with locked(folder):
            os.utime(folder)
            missing = [name for name in columns if not (folder / _file_of(name)).exists()]
            rows = not (folder / DONE).exists()
            if missing or rows:
                _remove_old(folder.parent)
                _build(folder, _tables(store, records, where, missing), missing, rows)
    except OSError as error:
        raise StoreError(f"{home}: cannot hold the corpus's index ({error.strerror}); give cache=FOLDER") from error
    return Index(folder)


def _sha256(record: CommitRecord, name: str) -> str:
    file = record.file(name)
    return file.sha256 if file else ""


def _tables(
    store: Store,
    records: Sequence[CommitRecord],
    where: Predicate | None,
    columns: Sequence[str],
) -> Iterator[tuple[CommitRecord, pa.Table]]:
    """Yield the manifests in the order of their shards, with the rows that may be trained on and fulfil *where*."""
    names = list(dict.fromkeys([*_NEEDED, *(where.columns if where else ()), *columns]))

    def load(record: CommitRecord) -> pa.Table:
        data, why = sound_manifest(store, record)
        if why:
            raise CorpusError(f"{store.url}/{why}; repair it: {repair_command(store.url)}")
        table = read_manifest(data, columns=names)
        table = table.filter(
            pc.equal(table["status"], str(Status.ok))
        )  # an expression would take a millisecond a shard
        if where is None:
            return table
        try:
            return table.filter(where.expression)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            why = str(error).splitlines()[0]
            name = layout.manifest(record.shard)
            raise ConfigError(f"where: {where.text!r} cannot be told of the rows of {name} ({why})") from error

    held = [record for record in records if record.counts.get("ok")]
    yield from zip(held, in_parallel(load, held, title="index"), strict=True)


def _build(folder: Path, tables: Iterable[tuple[CommitRecord, pa.Table]], columns: Sequence[str], rows: bool) -> None:
    """Write the index's own files (with *rows*) and *columns*; each has its name when all of it is on the disk."""
    count = shards = 0
    with ExitStack() as opened:
        files = {name: opened.enter_context(_new(folder / name)) for name in (_ARRAYS if rows else ())}
        sinks = {name: opened.enter_context(_new(folder / _file_of(name))) for name in columns}
        writers: dict[str, Any] = {}
        for record, table in tables:
            if not len(table):
                continue
            table = table.combine_chunks()  # so that it is written as one batch
            if rows:
                placed, blocks = _placed(table, count, shards)
                tar = _sha256(record, layout.tar(record.shard))[:32].encode()
                own = np.array([(count, record.shard, tar)], SHARD)
                for name, array in zip(_ARRAYS, (placed, blocks, own), strict=True):
                    files[name].write(array.tobytes())
            for name in columns:
                part = table.select([name])
                if name not in writers:
                    writers[name] = opened.enter_context(pa.ipc.new_file(sinks[name], part.schema))
                writers[name].write_table(part)
            count, shards = count + len(table), shards + 1
    if rows:
        (folder / DONE).touch()


def _placed(table: pa.Table, first: int, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ROW and BLOCK arrays of one shard's rows, the first of which has the number *first*."""
    rows = np.empty(len(table), ROW)
    for name in ROW.names or ():
        rows[name] = table[name].to_numpy()
    start = rows["offset"]
    end = start + rows["length"]
    # Rows are divided by a gap, and what lies between two gaps into equal pieces of about SPAN bytes.
    new = np.ones(len(rows), bool)
    new[1:] = start[1:] - end[:-1] > GAP
    firsts = np.flatnonzero(new)
    lengths = end[np.append(firsts[1:], len(rows)) - 1] - start[firsts]
    origin, length = (values[np.cumsum(new) - 1] for values in (start[firsts], lengths))
    piece = (end - origin - 1) * np.maximum(1, np.rint(length / SPAN).astype(np.int64)) // length
    new[1:] |= piece[1:] != piece[:-1]
    at = np.flatnonzero(new)
    blocks = np.empty(len(at), BLOCK)
    blocks["row"], blocks["shard"], blocks["start"] = first + at, shard, start[at]
    blocks["end"] = end[np.append(at[1:], len(rows)) - 1]
    return rows, blocks


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that will be *path* when it is closed, unless an exception ends it."""
    temporary = path.with_name(f"{path.name}.part")
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    size = path.stat().st_size
    # As a plain array: np.memmap's own indexing costs more than what is read.
    return np.memmap(path, dtype, "r").view(np.ndarray) if size else np.empty(0, dtype)


def _file_of(column: str) -> str:
    return f"column-{urllib.parse.quote(column, safe='')}.arrow"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make *folder* and hold it alone among the processes of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file, held(file):
        yield


def _remove_old(home: Path) -> None:
    """Remove what nobody has opened for long. Whoever still has it mapped keeps it."""
    for folder in home.iterdir():
        if time.time() - folder.stat().st_mtime > KEPT:
            shutil.rmtree(folder, ignore_errors=True)
