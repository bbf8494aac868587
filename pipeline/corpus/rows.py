"""Which rows of a corpus may be trained on and where their pictures lie: arrays that the loader maps.

They are made of manifests, for a snapshot of the corpus and a predicate: 16 bytes a row, and an Arrow file of a batch a
shard for each column. A row is a number from 0, in the order of shards and keys. Rows of one shard that lie near each
other form a *block*: what is read together. ``finish`` keeps those of all rows, with their captions, in ``index/``, and
last a note that says of which commits they were made, and their digests: no others than these are taken.
"""

import filecmp
import hashlib
import json
import os
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.manifest import Status
from pipeline.corpus.stores import Store

SPAN = 5 << 20  # bytes of a block, within a half, where there are as many: what one request asks for
GAP = 512 << 10  # bytes that are read for nothing rather than asked around, as a request takes their time too
VERSION = 1  # of the files below
CHUNK = 64 << 20  # bytes that are taken from a store at once
ARRAYS = ("rows.bin", "blocks.bin", "shards.bin")
CAPTION = "caption"

ROW = np.dtype([("offset", "<i8"), ("length", "<u4"), ("height", "<u2"), ("width", "<u2")])
# ``row`` is the first of a block; ``start`` and ``end`` are bytes of its shard's tar; ``shard`` counts in SHARD.
BLOCK = np.dtype([("row", "<i8"), ("start", "<i8"), ("end", "<i8"), ("shard", "<i4")])
SHARD = np.dtype([("row", "<i8"), ("number", "<i8"), ("tar", "S32")])  # ``tar``: the head of its sha256
NEEDED = ("status", "offset", "length", "height", "width")
# Of its bytes: what makes an Arrow value of a Python one looks for pandas, which takes a third of a second to import.
_OK = pa.StringArray.from_buffers(
    1, pa.py_buffer(np.array([0, len(Status.ok)], np.int32)), pa.py_buffer(Status.ok.encode())
)[0]


def fingerprint(digest: str, records: Sequence[CommitRecord], where: str = "") -> str:
    """Return a name of the rows that *where* leaves of *records*, of a corpus of identity *digest*."""
    snapshot = [(record.shard, _sha256(record, layout.manifest(record.shard))) for record in records]
    facts = [VERSION, SPAN, GAP, digest, snapshot, where]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def trainable(manifest: pa.Table) -> pa.Table:
    """Return the rows that may be trained on."""
    return manifest.filter(pc.equal(manifest["status"], _OK))  # an expression takes a millisecond a shard


def trainable_rows(manifest: pa.Table) -> np.ndarray:
    """Return the numbers of the rows that may be trained on, int64, ascending."""
    numbers: np.ndarray = np.flatnonzero(np.asarray(pc.equal(manifest["status"], _OK)))
    return numbers


def build(folder: Path, tables: Iterable[tuple[CommitRecord, pa.Table]], columns: Sequence[str], rows: bool) -> None:
    """Write to *folder* the arrays (with *rows*) and *columns*; each has its name when all of it is on the disk.

    *tables* have ``NEEDED`` and *columns*, and no rows that are left out; they come in the order of their shards.
    """
    count = shards = 0
    with ExitStack() as opened:
        files = {name: opened.enter_context(_new(folder / name)) for name in (ARRAYS if rows else ())}
        sinks = {name: opened.enter_context(_new(folder / file_of(name))) for name in columns}
        writers: dict[str, Any] = {}
        for record, table in tables:
            if not len(table):
                continue
            table = table.combine_chunks()  # so that it is written as one batch
            if rows:
                placed, blocks = placed_in_blocks(table, count, shards)
                tar = _sha256(record, layout.tar(record.shard))[:32].encode()
                own = np.array([(count, record.shard, tar)], SHARD)
                for name, array in zip(ARRAYS, (placed, blocks, own), strict=True):
                    files[name].write(array.tobytes())
            for name in columns:
                part = table.select([name])
                if name not in writers:
                    writers[name] = opened.enter_context(pa.ipc.new_file(sinks[name], part.schema))
                writers[name].write_table(part)
            count, shards = count + len(table), shards + 1


def placed_in_blocks(table: pa.Table, first: int, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ROW and BLOCK arrays of one shard's rows, the first of which has the number *first*."""
    rows = np.empty(len(table), ROW)
    for name in ROW.names or ():
        rows[name] = np.from_dlpack(table[name].combine_chunks())  # to_numpy looks for pandas too
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


def file_of(column: str) -> str:
    return f"column-{urllib.parse.quote(column, safe='')}.arrow"


def _sha256(record: CommitRecord, name: str) -> str:
    file = record.file(name)
    return file.sha256 if file else ""


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that will be *path* when it is closed, unless an exception ends it."""
    temporary = path.with_name(f"{path.name}.part")
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


# What finish keeps

FILES = (*ARRAYS, file_of(CAPTION))


def keep(
    store: Store, digest: str, records: Sequence[CommitRecord], tables: Iterable[tuple[CommitRecord, pa.Table]]
) -> None:
    """Write to *store* what the loader needs of all rows, of *tables* as ``build`` takes them.

    *records*, those of the tables, may be filled while these are read.
    """
    with tempfile.TemporaryDirectory(prefix="lacuna-") as scratch:
        folder = Path(scratch)
        build(folder, tables, (CAPTION,), rows=True)
        for name in FILES:
            store.write(layout.rows(name), folder / name)
        note = {"fingerprint": fingerprint(digest, records), "files": {name: _told(folder / name) for name in FILES}}
        store.write(layout.ROWS, json.dumps(note, indent=1).encode())


def _told(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def take(store: Store, made_of: str, folder: Path, names: Sequence[str]) -> set[str]:
    """Copy to *folder* those of the files *names* that finish kept for the rows *made_of* (a fingerprint), and that
    are whole; return them."""
    try:
        note = json.loads(store.read(layout.ROWS))
    except (FileNotFoundError, ValueError):
        return set()
    if not isinstance(note, dict) or note.get("fingerprint") != made_of:
        return set()
    told = note["files"]
    return {name for name in names if name in told and _copied(store, name, folder / name, **told[name])}


def _copied(store: Store, name: str, path: Path, size: int, sha256: str) -> bool:
    digest = hashlib.sha256()
    try:
        with _new(path) as file:
            if store.size(layout.rows(name)) != size:
                raise _OtherBytes
            for start in range(0, size, CHUNK):
                data = store.read_range(layout.rows(name), start, min(CHUNK, size - start))
                file.write(data)
                digest.update(data)
            if digest.hexdigest() != sha256:
                raise _OtherBytes
    except (FileNotFoundError, _OtherBytes):
        return False
    return True


class _OtherBytes(Exception):
    """What was read is not what the note says."""


def disagreeing(
    store: Store, digest: str, records: Sequence[CommitRecord], tables: Iterable[tuple[CommitRecord, pa.Table]]
) -> list[str]:
    """Return the files that finish keeps for the loader and that are not those of *records* and *tables* (see
    ``keep``); none where it has kept nothing, as older versions did."""
    if not store.exists(layout.ROWS):
        return []
    with tempfile.TemporaryDirectory(prefix="lacuna-") as scratch:
        ours, theirs = Path(scratch, "ours"), Path(scratch, "theirs")
        ours.mkdir()
        theirs.mkdir()
        build(ours, tables, (CAPTION,), rows=True)
        taken = take(store, fingerprint(digest, records), theirs, FILES)
        wrong = [name for name in FILES if name not in taken or not _same(ours / name, theirs / name)]
        return [layout.rows(name) for name in wrong] if taken else [layout.ROWS]


def _same(ours: Path, theirs: Path) -> bool:
    if filecmp.cmp(ours, theirs, shallow=False):
        return True
    # Another version of Arrow may write the same values in other bytes.
    both = ours.suffix == ".arrow" and ours.stat().st_size and theirs.stat().st_size
    return bool(both) and _batches(ours) == _batches(theirs)


def _batches(path: Path) -> list[pa.RecordBatch]:
    file = pa.ipc.open_file(pa.memory_map(str(path)))
    return [file.get_batch(i) for i in range(file.num_record_batches)]
