"""Stream a corpus into training: a WebDataset pipeline over its published tars."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, Literal

from pipeline.corpus import layout
from pipeline.corpus.opening import open_store
from pipeline.corpus.run_record import require_run_record
from pipeline.corpus.stores import Store
from pipeline.errors import CorpusError
from pipeline.parallel import in_parallel
from pipeline.paths import locate

# A remote tar is read some parts ahead, 72 MiB of it in memory at most. Not as one stream: a request must end within
# two minutes (see remote.py), and training may take longer over a tar.
PART = 8 << 20  # bytes
AT_ONCE = 4  # requests under way


def open_corpus(
    path: str,
    *,
    shuffle: int = 0,
    decode: Literal["torch", "pil", "numpy"] | None = "torch",
    seed: int = 0,
    options: Mapping[str, str] | None = None,
    keys: bool = False,
) -> Any:
    """Return a ``webdataset`` pipeline of ``(image, caption)``, or ``(key, image, caption)`` with *keys*.

    ``shuffle`` is the size of the buffer in samples; 0 keeps the corpus's order. Shards are split over DDP ranks and
    then over ``DataLoader`` workers, so every sample is seen once an epoch; a rank without a shard sees nothing, which
    would make DDP wait for ever, hence ``CorpusError`` where there are fewer shards than ranks. ``decode`` gives images
    as float ``(3, H, W)`` in [0, 1], as PIL images, as uint8 ``(H, W, 3)``, or as encoded bytes (None).
    """
    import webdataset as wds

    store = open_store(path, options)
    require_run_record(store)
    # One listing, and no commit record is read: at its final name a tar is committed and whole (see commit.py).
    names = (layout.tar_of(entry.path) for entry in store.list(layout.TRAIN))
    shards = sorted(shard for shard in names if shard is not None)
    if not shards:
        raise CorpusError(f"{path}: has no pictures to train on (yet)")
    ranks = _world_size()
    if len(shards) < ranks:
        raise CorpusError(f"{path}: has {len(shards)} shards for {ranks} ranks; lower output.samples_per_shard")
    stages: list[Any] = [wds.SimpleShardList([f"{store.url}/{layout.tar(shard)}" for shard in shards])]
    if shuffle:
        stages.append(wds.detshuffle(bufsize=len(shards), initial=len(shards), seed=seed))
    stages += [wds.split_by_node, wds.split_by_worker]
    # webdataset opens s3:// by running a command-line client; our own store needs none and has the credentials.
    stages.append(_read_tars(store) if not locate(path).on_disk else wds.tarfile_to_samples())
    if shuffle:
        stages.append(wds.detshuffle(bufsize=shuffle, initial=shuffle, seed=seed + 1))
    if decode is not None:
        stages.append(wds.decode({"torch": "torchrgb", "pil": "pil", "numpy": "rgb8"}[decode]))
    fields = ("jpg;png;webp", "txt")
    stages.append(wds.to_tuple("__key__", *fields) if keys else wds.to_tuple(*fields))
    return wds.DataPipeline(*stages)


def _read_tars(store: Store) -> Any:
    """Return a stage from shard URLs to samples that reads tars through *store*, part by part."""
    return _RemoteTars(store)


class _RemoteTars:
    """A pipeline stage; pickled into a spawned worker it connects anew, copied by a fork it refuses to hang."""

    def __init__(self, store: Store):
        self.store, self.process = store, os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.store, self.process = state["store"], os.getpid()

    def __call__(self, sources: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        from webdataset.tariterators import group_by_keys, tar_file_expander

        store = self.store
        if os.getpid() != self.process:
            raise CorpusError(
                f"{store.url}: an object store's client does not survive a fork, and would wait for ever; "
                "give the DataLoader multiprocessing_context='spawn'"
            )
        yield from group_by_keys(tar_file_expander(self._opened(sources)))

    def _opened(self, sources: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for source in sources:
            path = source["url"].removeprefix(f"{self.store.url}/")
            part = partial(self.store.read_range, path, length=PART)
            with closing(in_parallel(part, range(0, self.store.size(path), PART), threads=AT_ONCE)) as parts:
                yield {**source, "stream": io.BufferedReader(_Joined(parts))}


class _Joined(io.RawIOBase):
    """Parts as one file, to be read once from front to back."""

    def __init__(self, parts: Iterator[bytes]):
        self._parts, self._part = parts, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._part:
            self._part = memoryview(next(self._parts, b""))
        size = min(len(buffer), len(self._part))
        buffer[:size], self._part = self._part[:size], self._part[size:]
        return size


def _world_size() -> int:
    import torch.distributed as dist

    # The order in which webdataset's own split_by_node asks.
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
