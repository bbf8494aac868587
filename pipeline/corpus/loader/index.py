"""Which samples a reader has and where they lie: arrays on this machine's disk, mapped into memory, never read whole.

They are those that ``finish`` keeps in the corpus, or made of the manifests (see ``rows``), once for a snapshot of the
corpus and a predicate, and shared by all processes of the machine.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.damage import repair_command, sound_manifest
from pipeline.corpus.loader.predicate import Predicate
from pipeline.corpus.manifest import read_manifest
from pipeline.corpus.rows import (
    ARRAYS,
    BLOCK,
    NEEDED,
    ROW,
    SHARD,
    build,
    file_of,
    fingerprint,
    take,
    trainable,
)
from pipeline.corpus.stores import Store
from pipeline.errors import ConfigError, CorpusError, StoreError
from pipeline.files import held, replace_synced
from pipeline.parallel import in_parallel

KEPT = 30 * 86400.0  # seconds after which an index that nobody has opened is removed
DONE = "done"  # holds the sizes of the files that are whole

log = logging.getLogger(__name__)


class Index:
    """An opened index. ``rows``, ``blocks`` and ``shards`` are memory-mapped; pickled, it is opened anew."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._sizes = _noted(folder)
        self.rows, self.blocks, self.shards = (
            _mapped(self._whole(name), dtype) for name, dtype in zip(ARRAYS, (ROW, BLOCK, SHARD), strict=True)
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
        """Return what the manifests have in *column* for *rows*, as Python objects; lists of fixed size of
        numbers as arrays, unless one in them is null."""
        if column not in self._columns:
            self._columns[column] = _Column(self._whole(file_of(column)))
        shards = self.shard_of(rows)
        return self._columns[column].values(shards, rows - self.shards["row"][shards])

    def _whole(self, name: str) -> Path:
        """Return the path of a file; ``StoreError`` where it is not whole any more."""
        path = self.folder / name
        if _size(path) != self._sizes.get(name):
            raise StoreError(f"{path}: was cut since it was made; open the corpus again, which makes it anew")
        return path


class _Column:
    """One column: an Arrow file of a batch a shard."""

    def __init__(self, path: Path):
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        self._vectors = _holds_vectors(self._file.schema.types[0])
        self.batch = lru_cache(maxsize=1024)(self._batch)

    def _batch(self, shard: int) -> pa.Array:
        return self._file.get_batch(shard).column(0)

    def values(self, shards: np.ndarray, rows: np.ndarray) -> list[Any]:
        found = [self.batch(s)[r] for s, r in zip(shards.tolist(), rows.tolist(), strict=True)]
        if not self._vectors:
            return [scalar.as_py() for scalar in found]
        return [_vector(scalar) for scalar in found]


def _holds_vectors(type_: pa.DataType) -> bool:
    if not pa.types.is_fixed_size_list(type_):
        return False
    of = type_.value_type
    return bool(pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_boolean(of))


def _vector(scalar: pa.FixedSizeListScalar) -> Any:
    if not scalar.is_valid or scalar.values.null_count:
        return scalar.as_py()
    return scalar.values.to_numpy(zero_copy_only=False)


def open_index(
    store: Store,
    digest: str,
    records: Sequence[CommitRecord],
    where: Predicate | None,
    columns: Sequence[str],
    home: Path,
) -> Index:
    """Open the index of *records* under the folder *home*; what is neither there nor in the corpus is made of their
    manifests.

    *digest* is the corpus's identity. Raises ``ConfigError`` where Arrow cannot tell what *where* is of a row,
    ``CorpusError`` where a manifest is damaged, ``StoreError`` where *home* cannot be written.
    """
    folder = home / "index" / fingerprint(digest, records, where.name if where else "")
    try:
        with locked(folder):
            os.utime(folder)
            whole = _noted(folder)
            for name in [name for name, size in whole.items() if _size(folder / name) != size]:
                log.warning("%s: was cut since it was made; it is made anew", folder / name)
                del whole[name]
            missing = [name for name in columns if file_of(name) not in whole]
            rows = not whole.keys() >= set(ARRAYS)
            if missing or rows:
                needed = [*ARRAYS, *map(file_of, columns)]
                _remove_old(folder.parent)
                if where is None:
                    names = [*(ARRAYS if rows else ()), *map(file_of, missing)]
                    taken = take(store, folder.name, folder, names)
                    rows = rows and not taken.issuperset(ARRAYS)
                    missing = [name for name in missing if file_of(name) not in taken]
                if missing or rows:
                    build(folder, _tables(store, records, where, missing), missing, rows)
                whole |= {name: (folder / name).stat().st_size for name in needed}
                replace_synced(folder / DONE, json.dumps(whole).encode(), folder / f"{DONE}.part")
    except OSError as error:
        raise StoreError(f"{home}: cannot hold the corpus's index ({error.strerror}); give cache=FOLDER") from error
    return Index(folder)


def _tables(
    store: Store,
    records: Sequence[CommitRecord],
    where: Predicate | None,
    columns: Sequence[str],
) -> Iterator[tuple[CommitRecord, pa.Table]]:
    """Yield the manifests in the order of their shards, with the rows that may be trained on and fulfil *where*."""
    names = list(dict.fromkeys([*NEEDED, *(where.columns if where else ()), *columns]))

    def load(record: CommitRecord) -> pa.Table:
        data, why = sound_manifest(store, record)
        if why:
            raise CorpusError(f"{store.url}/{why}; repair it: {repair_command(store.url)}")
        table = trainable(read_manifest(data, columns=names))
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


def _noted(folder: Path) -> dict[str, int]:
    """Return the sizes of the files of an index that were whole when they were made; none where nobody has said so."""
    try:
        return dict(json.loads((folder / DONE).read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    size = path.stat().st_size
    # As a plain array: np.memmap's own indexing costs more than what is read.
    return np.memmap(path, dtype, "r").view(np.ndarray) if size else np.empty(0, dtype)


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
