"""A corpus as a map-style dataset of torch: what may be trained on, by number, in the order of shards and keys."""

import logging
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset

from pipeline.corpus import layout
from pipeline.corpus.damage import repair_command
from pipeline.corpus.loader.arguments import expect_flag, expect_folder, expect_one_of, expect_options, shown
from pipeline.corpus.loader.cache import Cache
from pipeline.corpus.loader.collate import collate, column, new_batch
from pipeline.corpus.loader.decode import DECODES, Decode, Undecodable, decode, decode_into
from pipeline.corpus.loader.index import Index, open_index
from pipeline.corpus.loader.order import Mixed, Rows, Sequential, Shuffled
from pipeline.corpus.loader.pictures import Pictures, whole
from pipeline.corpus.loader.predicate import predicate_of
from pipeline.corpus.loader.snapshot import open_snapshot
from pipeline.corpus.manifest import schema
from pipeline.corpus.opening import open_store
from pipeline.errors import ConfigError, CorpusError, nearest
from pipeline.paths import locate

IMAGE = "image"
SPOOL = 2 << 30  # bytes of an object store's blocks on disk where no cache is given: twice what a shuffle is about
TRIES = 32  # rows near it that are tried in place of one that is damaged, and then as many of everywhere,
NEAR = 1 << 16  # of so many that are looked at

log = logging.getLogger(__name__)


class Corpus(Dataset[dict[str, Any]]):
    """Samples are dicts of *columns*: ``image``, and what the manifests have under the other names.

    *where* is a predicate over manifest columns (see ``where``). *decode* gives images as uint8 tensors (H, W, 3), as
    Pillow images, or as encoded bytes; without ``image`` among the columns no tar is read. *options* are those of the
    object store. *cache*, a folder or a ``Cache``, keeps what was read from the store, and the index. Of a damaged
    picture *on_error* makes an error, or ``skip`` gives the next sample of the same size in its place, so that counts
    stay as they are; ``skipped`` counts them in this process. A corpus that is not complete is refused, unless
    *partial* takes what is committed now.

    Raises ``ConfigError`` for an argument, ``CorpusError`` for a corpus and ``StoreError`` for storage that cannot be
    used. It can be pickled; nothing of it grows in memory with the number of rows.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        where: str | pc.Expression | None = None,
        columns: Sequence[str] = (IMAGE, "caption"),
        decode: Decode = "uint8",
        options: Mapping[str, str] | None = None,
        cache: str | Path | Cache | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        partial: bool = False,
    ):
        expect_one_of("decode", decode, DECODES)
        expect_one_of("on_error", on_error, ("raise", "skip"))
        expect_flag("partial", partial)
        expect_folder("path", path)
        expect_options(options)
        if not isinstance(columns, Sequence) or not columns:
            raise ConfigError(
                f"columns: {shown(columns)}; expected a list of one at least, such as ['image', 'caption']"
            )
        self.columns = (columns,) if isinstance(columns, str) else tuple(columns)
        self.decode, self.on_error, self.skipped = decode, on_error, 0
        location = locate(path)
        kept = cache if cache is None or isinstance(cache, Cache) else Cache(cache)
        store = open_store(location, options)
        self.url = store.url
        run, records = open_snapshot(store, partial, kept.home if kept else None)
        names = schema(run.column_schema, quality=run.quality_schema)
        for name in self.columns:
            if name != IMAGE and name not in names.names:
                hint = nearest(name, [IMAGE, *names.names])
                raise ConfigError(f"columns: {name!r} is no column of {self.url}{hint}")
        predicate = predicate_of(where, names) if where is not None else None
        home = kept.home if kept else default_home()
        columns = [name for name in self.columns if name != IMAGE]
        self.index: Index = open_index(store, run.digest, records, predicate, columns, home)
        if not len(self.index):
            raise CorpusError(
                f"{self.url}: has no pictures to train on{f' where {predicate.text}' if predicate else ''}"
            )
        if kept is None and not location.on_disk:
            kept = Cache(home, SPOOL)
        self.remote = not location.on_disk
        self._pictures = Pictures(store, self.index, kept)

    @property
    def fingerprint(self) -> str:
        """Equal for corpora in which the same numbers are the same samples."""
        return self.index.fingerprint

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([operator.index(row)])[0]

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Return the samples of *rows*, from 0, or from the end where negative; read together, which spares requests to
        storage. What those of a ``BatchSampler`` announce is read ahead. Raises ``IndexError``."""
        if isinstance(rows, Rows):
            self.prefetch(rows.ahead)
        return self.read(numbered(rows, len(self)))

    def order(self, seed: int, shuffle: bool) -> Mixed:
        """Return the order that *seed* names, or that of the rows."""
        blocks = self.index.blocks
        if not shuffle:
            return Sequential(blocks["row"], len(self))
        return Shuffled(blocks["row"], len(self), float((blocks["end"] - blocks["start"]).mean()), seed)

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return heights and widths of the pictures, in pixels, by number."""
        return self.index.rows["height"], self.index.rows["width"]

    def read(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return the samples of *rows* (int64)."""
        rows = np.asarray(rows, np.int64)
        images: list[Any] = []
        if IMAGE in self.columns:
            rows, images = self._images(rows)
        found = [images if name == IMAGE else self.index.values(name, rows) for name in self.columns]
        return [dict(zip(self.columns, sample, strict=True)) for sample in zip(*found, strict=True)]

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the samples of *rows* as one dict (see ``collate``); pictures of one size are decoded into place."""
        placed = self.index.rows[rows]
        _, _, height, width = placed[0].item()
        alike = (placed["height"] == height).all() and (placed["width"] == width).all()
        if IMAGE not in self.columns or self.decode != "uint8" or not alike:
            return collate(self.read(rows))
        used, images = rows.copy(), new_batch((len(rows), height, width, 3), torch.uint8)
        pixels = images.numpy()
        for at, data in enumerate(self._pictures.read(rows)):
            try:
                decode_into(whole(data), pixels[at])
            except Undecodable as error:
                used[at], images[at] = self._instead(int(rows[at]), error)
        return {n: images if n == IMAGE else column(self.index.values(n, used)) for n in self.columns}

    def prefetch(self, blocks: Sequence[int] | np.ndarray) -> None:
        """Have *blocks* of the index read from storage, without waiting."""
        if IMAGE in self.columns:
            self._pictures.prefetch(blocks)

    def _images(self, rows: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        """Return the rows that are used, which are others where pictures are damaged, and their pictures."""
        used, images = rows.copy(), []
        for at, data in enumerate(self._pictures.read(rows)):
            try:
                images.append(decode(whole(data), self.decode))
            except Undecodable as error:
                used[at], image = self._instead(int(rows[at]), error)
                images.append(image)
        return used, images

    def _instead(self, row: int, error: Undecodable) -> tuple[int, Any]:
        shard = self.index.shards[self.index.shard_of(np.array([row]))[0]]
        place = f"{self.url}/{layout.tar(int(shard['number']))}: the picture at byte {self.index.rows[row]['offset']}"
        if self.on_error == "raise":
            raise CorpusError(
                f"{place} is damaged ({error}); repair it: {repair_command(self.url)}, or read on with on_error='skip'"
            ) from error
        for other in self._like(row).tolist():
            try:
                image = decode(whole(self._pictures.read(np.array([other]))[0]), self.decode)
            except Undecodable:
                continue
            self.skipped += 1
            log.warning("%s is damaged (%s); another is given in its place", place, error)
            return other, image
        raise CorpusError(f"{place} is damaged ({error}), and no other of its size can be given in its place")

    def _like(self, row: int) -> np.ndarray:
        """Return rows of the same size: those that follow *row*, and, as all of its tar may be damaged, some of
        everywhere."""
        sizes, found = self.index.rows[["height", "width"]], []
        for step in (1, max(1, len(self) // NEAR)):
            others = (row + 1 + step * np.arange(min(len(self) - 1, NEAR))) % len(self)
            found.append(others[sizes[others] == sizes[row]])
        near, far = found
        return np.append(near[:TRIES], far[np.linspace(0, len(far) - 1, TRIES).astype(int)] if len(far) else far)


def numbered(rows: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """Return *rows* as int64, those below 0 counted from the end. Raises ``IndexError`` for one that is not there."""
    given = np.asarray(rows, np.int64)
    found = np.where(given < 0, given + length, given)
    if (wrong := given[(found < 0) | (found >= length)]).size:
        raise IndexError(f"{wrong[0]} of {length} samples")
    return found


def default_home() -> Path:
    """Return where indexes, and an object store's blocks, are kept on this machine: ``~/.cache/lacuna``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lacuna"
