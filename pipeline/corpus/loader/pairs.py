"""Stream a corpus into training as pairs of picture and caption: the plainest way in, on top of ``loader.Corpus``."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch.utils.data import get_worker_info

from pipeline.corpus.loader.arguments import expect_count, expect_flag, expect_one_of
from pipeline.corpus.loader.corpus import IMAGE, Corpus
from pipeline.corpus.loader.decode import Decode
from pipeline.corpus.loader.order import Rounds
from pipeline.corpus.loader.samplers import Stream
from pipeline.errors import CorpusError

STEP = 64  # samples that are read at once
HOW: dict[str, Decode] = {"torch": "uint8", "pil": "pil", "numpy": "uint8"}


def open_corpus(
    path: str,
    *,
    shuffle: int = 0,
    decode: Literal["torch", "pil", "numpy"] | None = "torch",
    seed: int = 0,
    options: Mapping[str, str] | None = None,
    keys: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    partial: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
) -> "Pairs":
    """Return an iterable dataset of ``(image, caption)``, or ``(key, image, caption)`` with *keys*.

    ``decode`` gives images as float ``(3, H, W)`` in [0, 1], as PIL images, as uint8 ``(H, W, 3)``, or as encoded bytes
    (None). ``shuffle`` 0 keeps the corpus's order; with any other number each epoch has an order of its own, which
    *seed* names (see ``loader.order``; how many are held for it is the loader's to know).

    Samples are split over DDP ranks and then over ``DataLoader`` workers: each is seen once an epoch, but for those
    that are left over, fewer than there are ranks, because each rank has equally many. Rank and world size are
    torch.distributed's where it is initialised, unless given. *options*, *on_error* and *partial* are ``Corpus``'s:
    what is damaged raises or is replaced by another picture; a corpus that is not complete is refused, or read as the
    snapshot of what is committed now. ``Loader`` resumes in the middle of an epoch, which this does not.

    Raises ``ConfigError``, ``CorpusError`` and ``StoreError`` as ``Corpus`` does.
    """
    expect_count("shuffle", shuffle, 0)
    expect_flag("keys", keys)
    if decode is not None:
        expect_one_of("decode", decode, list(HOW))
    corpus = Corpus(
        path,
        columns=("key", IMAGE, "caption"),
        decode="bytes" if decode is None else HOW[decode],
        options=options,
        on_error=on_error,
        partial=partial,
    )
    return Pairs(corpus, decode, keys, seed=seed, shuffle=shuffle > 0, rank=rank, world_size=world_size)


class Pairs(Stream):
    """What ``open_corpus`` returns. Each pass is the next epoch, unless ``set_epoch`` says which."""

    def __init__(self, corpus: Corpus, decode: str | None, keys: bool, **arguments: Any):
        super().__init__(corpus, STEP, **arguments)
        self._decode, self._keys, self._url = decode, keys, corpus.url

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # tuples, and no state that could be saved
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        rank, world = self._ranks.settled()
        each = self._order.length // world  # samples of every rank
        if not each:
            raise CorpusError(f"{self._url}: has {self._order.length} pictures for {world} ranks")
        epoch = self._epochs.of_pass(info.seed - info.id if info else None, worker)
        size = min(STEP, -(-each // workers))
        self._open(epoch, 0, rank, Rounds(self._order.length, size, world, workers, False), worker)
        for first in range(worker * size, each, workers * size):
            last = min(first + size, each)
            share = self._order.share(epoch, first * world, last * world, rank, world)
            self.source.prefetch(share.ahead)
            yield from map(self._pair, self.source.read(share.rows))

    def _pair(self, sample: dict[str, Any]) -> tuple[Any, ...]:
        image = sample[IMAGE]
        if self._decode == "torch":
            image = image.permute(2, 0, 1).float() / 255
        elif self._decode == "numpy":
            image = image.numpy()
        pair = (image, sample["caption"])
        return (sample["key"], *pair) if self._keys else pair
