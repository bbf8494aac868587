"""Encoded pictures of an index's rows: read from tars on disk, or in blocks from a store through a cache.

A local tar is read picture by picture, its blocks being announced to the system. From an object store, or with a cache,
a whole block is fetched by one request, once a machine, and pictures are cut out of it.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache
from io import FileIO
from typing import Any

import numpy as np

from pipeline.corpus import layout
from pipeline.corpus.loader.cache import Cache
from pipeline.corpus.loader.decode import Undecodable
from pipeline.corpus.loader.fetches import Fetches
from pipeline.corpus.loader.index import Index
from pipeline.corpus.loader.open_files import OpenFiles
from pipeline.corpus.local import LocalStore
from pipeline.corpus.stores import Store

ANNOUNCED = 1 << 10  # blocks of local tars that are remembered as announced; a later epoch announces them again
AGAIN = (0.0, 0.5, 2.0)  # seconds before each time that a range is asked for; again where it came short
SHORT, MISSING = "its tar ends before it", "its tar is missing"


class Pictures:
    """Reads the pictures of *index*; without *cache* the store is a folder on disk.

    Pickled it connects anew; in a forked process it opens its files anew, and an object store refuses to be asked.
    """

    def __init__(self, store: Store, index: Index, cache: Cache | None):
        self._store, self._index, self._cache = store, index, cache
        self._begin()

    def __reduce__(self) -> Any:
        return Pictures, (self._store, self._index, self._cache)

    def _begin(self) -> None:
        self._process = os.getpid()
        self._files = OpenFiles()
        self._announced = lru_cache(ANNOUNCED)(self._announce)
        self._coming: dict[int, Future[FileIO]] = {}
        self._lost: dict[int, Undecodable] = {}  # blocks that the store has not, and was asked for
        self._fetches = Fetches(self._fetch)  # starts no thread yet

    def read(self, rows: np.ndarray) -> list[bytes | Undecodable]:
        """Return the encoded pictures of *rows* (int64); for one that its tar has not the error that says so (see
        ``whole``). Raises ``StoreError``."""
        blocks = self._index.block_of(rows)
        self._have(blocks, urgent=True)
        places, held = self._index.rows[rows], self._index.blocks[blocks]
        offsets, lengths = places["offset"], places["length"].tolist()
        if self._cache is None:
            return list(map(self._of_tar, held["shard"].tolist(), offsets.tolist(), lengths))
        return list(map(self._of_block, blocks.tolist(), (offsets - held["start"]).tolist(), lengths))

    def prefetch(self, blocks: Sequence[int] | np.ndarray) -> None:
        """Have *blocks* fetched, or announced to the system, without waiting for them."""
        self._have(blocks, urgent=False)

    def _have(self, blocks: Sequence[int] | np.ndarray, urgent: bool) -> None:
        if os.getpid() != self._process:
            self._begin()
        wanted: list[int] = np.asarray(blocks, np.int64).tolist()
        if self._cache is None:
            for block in wanted:
                self._announced(block)
            return
        for block in [block for block, file in self._coming.items() if file.done()]:
            future = self._coming.pop(block)
            if future.exception() is None:  # else whoever reads the block asks again, and hears of it
                self._files.keep(block, future.result())
        for block in wanted:
            if self._files.get(block) or block in self._lost:
                continue
            if block not in self._coming:
                self._coming[block] = self._fetches.ask(block, urgent)
            elif urgent:
                self._fetches.hurry(block)

    def _of_tar(self, shard: int, offset: int, length: int) -> bytes | Undecodable:
        try:
            data = os.pread(self._tar(shard).fileno(), length, offset)
        except Undecodable as error:
            return error
        return data if len(data) == length else Undecodable(SHORT)

    def _of_block(self, block: int, offset: int, length: int) -> bytes | Undecodable:
        try:
            data = os.pread(self._block(block).fileno(), length, offset)
            if len(data) < length:  # it was cut since it was opened
                data = os.pread(self._files.keep(block, self._fetch(block)).fileno(), length, offset)
            return data
        except Undecodable as error:
            self._lost[block] = error
            return error

    def _block(self, block: int) -> FileIO:
        if file := self._files.get(block):
            return file
        if block in self._lost:
            raise self._lost[block]
        future = self._coming.pop(block, None)
        return self._files.keep(block, future.result() if future else self._fetch(block))

    def _fetch(self, block: int) -> FileIO:
        assert self._cache is not None
        _, start, end, shard = self._index.blocks[block].item()
        tar = self._index.shards[shard]["tar"].item().decode()
        size = end - start
        return self._cache.open(f"{tar}-{start}-{end}", size, lambda: self._range(shard, start, size))

    def _range(self, shard: int, start: int, length: int) -> bytes:
        name = layout.tar(self._number(shard))
        for pause in AGAIN:
            time.sleep(pause)
            try:
                data = self._store.read_range(name, start, length)
            except FileNotFoundError:
                raise Undecodable(MISSING) from None
            if len(data) == length:
                return data
        raise Undecodable(SHORT)

    def _tar(self, shard: int) -> FileIO:
        if file := self._files.get(shard):
            return file
        assert isinstance(self._store, LocalStore)
        try:
            return self._files.keep(shard, self._store.opened(layout.tar(self._number(shard))))
        except FileNotFoundError:
            raise Undecodable(MISSING) from None

    def _announce(self, block: int) -> None:
        if hasattr(os, "posix_fadvise"):  # not on macOS
            _, start, end, shard = self._index.blocks[block].item()
            with suppress(Undecodable):  # whoever reads it hears of it
                os.posix_fadvise(self._tar(shard).fileno(), start, end - start, os.POSIX_FADV_WILLNEED)

    def _number(self, shard: int) -> int:
        return int(self._index.shards[shard]["number"])


def whole(picture: bytes | Undecodable) -> bytes:
    """Return what ``Pictures.read`` has read of a picture. Raises ``Undecodable`` where that is nothing."""
    if isinstance(picture, Undecodable):
        raise picture
    return picture
