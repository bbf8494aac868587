"""Encoded pictures of an index's rows: read from tars on disk, or in blocks from a store through a cache.

A local tar is read picture by picture, its blocks being announced to the system. From an object store, or with a cache,
a whole block is fetched by one request, once a machine, and pictures are cut out of it.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from io import FileIO
from typing import Any

import numpy as np

from pipeline.corpus import layout
from pipeline.corpus.damage import repair_command
from pipeline.corpus.loader.cache import Cache
from pipeline.corpus.loader.index import Index
from pipeline.corpus.local import LocalStore
from pipeline.corpus.stores import Store
from pipeline.errors import CorpusError, StoreError

AT_ONCE = 16  # requests under way
OPEN = 256  # files held open
AGAIN = (0.0, 0.5, 2.0)  # seconds before each time that a range is asked for; again where it came short
SHORT = "ends before its manifest says"


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
        self._tar = lru_cache(OPEN)(self._open_tar)
        self._announced = lru_cache(1 << 14)(self._announce)
        self._blocks: OrderedDict[int, FileIO] = OrderedDict()
        self._coming: dict[int, Future[FileIO]] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="lacuna-read")  # starts no thread yet

    def read(self, rows: np.ndarray) -> list[bytes]:
        """Return the encoded pictures of *rows* (int64). Raises ``CorpusError``, ``StoreError``."""
        blocks = self._index.block_of(rows)
        self.prefetch(blocks)
        places = self._index.rows[rows]
        wanted = zip(blocks.tolist(), places["offset"].tolist(), places["length"].tolist(), strict=True)
        return [self._picture(*one) for one in wanted]

    def prefetch(self, blocks: Iterable[int]) -> None:
        """Have *blocks* fetched, or announced to the system, without waiting for them."""
        if os.getpid() != self._process:
            self._begin()
        if self._cache is None:
            for block in blocks:
                self._announced(int(block))
            return
        for block in [block for block, file in self._coming.items() if file.done()]:
            future = self._coming.pop(block)
            if future.exception() is None:  # else whoever reads the block asks again, and hears of it
                self._hold(block, future.result())
        for block in map(int, blocks):
            if block not in self._blocks and block not in self._coming:
                self._coming[block] = self._pool.submit(self._fetch, block)

    def _picture(self, block: int, offset: int, length: int) -> bytes:
        _, start, _, shard = self._index.blocks[block].item()
        if self._cache is None:
            file, at = self._tar(shard), offset
        else:
            file, at = self._block(block), offset - start
        data = os.pread(file.fileno(), length, at)
        if len(data) != length:
            raise self._damaged(shard, SHORT)
        return data

    def _block(self, block: int) -> FileIO:
        if block in self._blocks:
            self._blocks.move_to_end(block)
            return self._blocks[block]
        future = self._coming.pop(block, None)
        file = future.result() if future else self._fetch(block)
        self._hold(block, file)
        return file

    def _hold(self, block: int, file: FileIO) -> None:
        self._blocks[block] = file
        if len(self._blocks) > OPEN:
            self._blocks.popitem(last=False)

    def _fetch(self, block: int) -> FileIO:
        assert self._cache is not None
        _, start, end, shard = self._index.blocks[block].item()
        tar = self._index.shards[shard]["tar"].item().decode()
        name = f"{tar}-{start}-{end}"
        file = self._cache.open(name, lambda: self._range(shard, start, end - start))
        if os.fstat(file.fileno()).st_size != end - start:
            raise StoreError(f"{self._cache.path(name)}: was cut since it was cached; delete it, it is fetched again")
        return file

    def _range(self, shard: int, start: int, length: int) -> bytes:
        name = layout.tar(self._number(shard))
        for pause in AGAIN:
            time.sleep(pause)
            try:
                data = self._store.read_range(name, start, length)
            except FileNotFoundError:
                raise self._damaged(shard, "missing") from None
            if len(data) == length:
                return data
        raise self._damaged(shard, SHORT)

    def _open_tar(self, shard: int) -> FileIO:
        assert isinstance(self._store, LocalStore)
        try:
            return open(self._store.root / layout.tar(self._number(shard)), "rb", buffering=0)
        except FileNotFoundError:
            raise self._damaged(shard, "missing") from None

    def _announce(self, block: int) -> None:
        if hasattr(os, "posix_fadvise"):  # not on macOS
            _, start, end, shard = self._index.blocks[block].item()
            os.posix_fadvise(self._tar(shard).fileno(), start, end - start, os.POSIX_FADV_WILLNEED)

    def _number(self, shard: int) -> int:
        return int(self._index.shards[shard]["number"])

    def _damaged(self, shard: int, how: str) -> CorpusError:
        url = self._store.url
        return CorpusError(f"{url}/{layout.tar(self._number(shard))}: {how}; repair it: {repair_command(url)}")
