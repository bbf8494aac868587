"""The order for those who bring their own DataLoader: a batch sampler over a map-style corpus, and an iterable.

Both divide an epoch as ``Loader`` does. Their states, which torchdata's ``StatefulDataLoader`` saves and loads, go on
exactly at equal numbers of ranks, workers and samples a batch, and are refused at others.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from torch.utils.data import IterableDataset, Sampler, get_worker_info

from pipeline.corpus.loader.arguments import expect_count, expect_flag, expect_number, expect_one_of
from pipeline.corpus.loader.loader import REMAINDERS, Remainder
from pipeline.corpus.loader.order import Rounds, Rows, Share
from pipeline.corpus.loader.progress import Progress, check_state, other_number
from pipeline.corpus.loader.ranks import Ranks
from pipeline.corpus.loader.source import Source, expect_source
from pipeline.files import held


class _Deal:
    """What both are made of: an order, ranks, and how an epoch is divided."""

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        remainder: Remainder = "drop",
        rank: int | None = None,
        world_size: int | None = None,
    ):
        expect_source(source)
        expect_count("batch_size", batch_size, 1)
        expect_number("seed", seed)
        expect_flag("shuffle", shuffle)
        expect_one_of("remainder", remainder, REMAINDERS)
        self.source, self.batch_size, self.seed, self.shuffle = source, batch_size, seed, shuffle
        self._order, self._pad = source.order(seed, shuffle), remainder == "pad"
        self._ranks = Ranks(rank, world_size)

    def _rounds(self, workers: int) -> tuple[int, Rounds]:
        rank, world = self._ranks.settled()
        return rank, Rounds(self._order.length, self.batch_size, world, workers, self._pad)

    def _share(self, epoch: int, at: int, rank: int, rounds: Rounds) -> Share:
        return self._order.share(epoch, at, at + rounds.step, rank, rounds.world)

    def _state(self, kind: str, rounds: Rounds, epoch: int, **more: int) -> dict[str, Any]:
        return {
            "kind": kind,
            "corpus": self.source.fingerprint,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "buckets": self._order.buckets,
            "world_size": rounds.world,
            "workers": rounds.workers,
            "batch_size": self.batch_size,
            "epoch": epoch,
            **more,
        }


class BatchSampler(_Deal, Sampler[list[int]]):
    """Batches of numbers: ``DataLoader(corpus, batch_sampler=BatchSampler(corpus, 32))``.

    Each pass is the next epoch, unless ``set_epoch`` says which. *workers* is the DataLoader's ``num_workers`` where
    they are to have equal numbers of batches. Where accelerate deals batches to ranks itself, give ``rank=0,
    world_size=1``. Other arguments are ``Loader``'s.
    """

    def __init__(self, source: Source, batch_size: int, *, workers: int = 0, **arguments: Any):
        expect_count("workers", workers, 0)
        super().__init__(source, batch_size, **arguments)
        self.workers, self._progress = workers, Progress()
        self.drop_last = not self._pad  # accelerate asks

    def set_epoch(self, epoch: int) -> None:
        """See ``Loader.set_epoch``."""
        expect_count("epoch", epoch, 0)
        self._progress.set_epoch(epoch)

    def __len__(self) -> int:
        return self._rounds(self.workers)[1].steps(0)

    def __iter__(self) -> "_Batches":
        _refuse_other_workers(sys._getframe(1).f_locals)
        return _Batches(self)


def _refuse_other_workers(asking: Mapping[str, Any]) -> None:
    """Raise ``CorpusError`` where a ``StatefulDataLoader`` that was given a state of another number of workers begins a
    pass; *asking* are the variables of what asks. It does so before it looks at the state, of which it then says
    nothing but that an assertion fails."""
    loader = asking.get("loader")
    state = getattr(loader, "next_iter_state", None)
    if loader is not None and state is not None:
        saved = state["_snapshot"]["_main_snapshot"]["_num_workers"] if "_snapshot" in state else 0
        if saved != loader.num_workers:
            asking["self"]._shutdown = True  # it has started nothing that it would have to end
            raise other_number("num_workers", saved, loader.num_workers)


class _Batches(Iterator[list[int]]):
    """One pass; its position is what was handed out, which ``StatefulDataLoader`` keeps with each batch."""

    def __init__(self, sampler: BatchSampler):
        self._sampler, self._progress = sampler, sampler._progress
        self._rank, self._rounds = sampler._rounds(sampler.workers)
        self._begun = False

    def _begin(self) -> None:
        """With the first batch: a DataLoader makes iterators that it does not use."""
        if not self._begun:
            self._begun = True
            self._progress.begin()
            self._epoch, self._position = self._progress.epoch, self._progress.start
            self._end = self._position + self._rounds.steps(self._position) * self._rounds.step
            order, rounds, readers = self._sampler._order, self._rounds, max(1, self._rounds.workers)
            opening = order.opening(self._epoch, self._position, rounds.step, self._rank, rounds.world).tolist()
            self._opening = [opening[reader::readers] for reader in range(readers)]

    def __next__(self) -> list[int]:
        self._begin()
        if self._position >= self._end:
            if self._progress.epoch == self._epoch:
                self._progress.set_epoch(self._epoch + 1)
            raise StopIteration
        share = self._sampler._share(self._epoch, self._position, self._rank, self._rounds)
        self._position += self._rounds.step
        rows = Rows(share.rows.tolist())
        rows.ahead = [*(self._opening.pop(0) if self._opening else ()), *share.ahead.tolist()]
        return rows

    def state_dict(self) -> dict[str, Any]:
        epoch, position = (self._epoch, self._position) if self._begun else self._progress.next()
        return self._sampler._state("lacuna batch sampler 1", self._rounds, epoch, position=position)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_state(state, self.state_dict())
        self._progress.resume(state["epoch"], state["position"])
        self._begun = False


class Stream(_Deal, IterableDataset[dict[str, Any]]):
    """Samples, in each worker those of its batches: ``DataLoader(Stream(corpus, 32), batch_size=32)``; the two batch
    sizes are one. Each pass is the next epoch, unless ``set_epoch`` says which. Other arguments are ``Loader``'s."""

    def __init__(self, source: Source, batch_size: int, **arguments: Any):
        super().__init__(source, batch_size, **arguments)
        self._epochs = _Epochs()

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass be *epoch*. To be called between passes, in the training process."""
        expect_count("epoch", epoch, 0)
        self._epochs.set(epoch)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class, as ever. It is the one thing that a ``StatefulDataLoader`` asks of a dataset in the training
        process before it looks at a state."""
        frame = sys._getframe(1)
        if frame.f_code.co_name == "__instancecheck__" and frame.f_back is not None:
            frame = frame.f_back
        if frame.f_code.co_name == "__init__":
            _refuse_other_workers(frame.f_locals)
        return type(self)

    def __iter__(self) -> "_Samples":
        return _Samples(self)

    def _open(self, epoch: int, at: int, rank: int, rounds: Rounds, worker: int) -> None:
        """Have what *worker* is to announce of a pass that begins *at* a position be read."""
        opening = self._order.opening(epoch, at, rounds.step, rank, rounds.world)
        self.source.prefetch(opening[worker :: max(1, rounds.workers)])


class _Samples(Iterator[dict[str, Any]]):
    """One pass in one worker, which has every so-many-th step of its rank."""

    def __init__(self, stream: Stream):
        info = get_worker_info()
        self._worker = info.id if info else 0
        workers = info.num_workers if info else 1
        self._stream = stream
        seed = info.seed - info.id if info else None  # equal in all workers of a pass
        self._rank, self._rounds = stream._rounds(workers)
        self._epoch = stream._epochs.of_pass(seed, self._worker)
        self._steps = self._rounds.steps(0) // workers  # of this worker
        self._go(0)

    def _go(self, given: int) -> None:
        self._given = given
        self._samples: Iterator[dict[str, Any]] = iter(())
        self._reads = False
        step, within = divmod(given, self._stream.batch_size)
        if within:
            self._samples = iter(self._read(step)[within:])

    def _read(self, step: int) -> list[dict[str, Any]]:
        at = (step * self._rounds.workers + self._worker) * self._rounds.step
        share = self._stream._share(self._epoch, at, self._rank, self._rounds)
        if not self._reads:
            self._reads = True
            self._stream._open(self._epoch, at, self._rank, self._rounds, self._worker)
        self._stream.source.prefetch(share.ahead)
        return self._stream.source.read(share.rows)

    def __next__(self) -> dict[str, Any]:
        step, within = divmod(self._given, self._stream.batch_size)
        if not within:
            if step >= self._steps:
                raise StopIteration
            self._samples = iter(self._read(step))
        self._given += 1
        return next(self._samples)

    def state_dict(self) -> dict[str, Any]:
        return self._stream._state("lacuna stream 1", self._rounds, self._epoch, worker=self._worker, given=self._given)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_state(state, self.state_dict())
        self._epoch = state["epoch"]
        self._stream._epochs.resumed(self._epoch)
        self._go(state["given"])


class _Epochs:
    """Which epoch a pass is of, agreed upon by workers that know nothing of each other and may live for one pass only.

    A small file that they lock: of each training process the last pass, its epoch, and the workers that have begun it.
    A pass is another one where torch's seed for its workers is another, or where a worker begins again. Processes of a
    training that are spawned with one dataset each count from where it stood.
    """

    def __init__(self) -> None:
        self._maker = str(os.getpid())
        descriptor, self._path = tempfile.mkstemp(prefix="lacuna-epoch-")
        os.close(descriptor)
        self.set(0)
        weakref.finalize(self, _remove, self._path, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_maker": self._maker}

    def set(self, epoch: int) -> None:
        self._change(lambda _: {"next": epoch})

    def of_pass(self, seed: int | None, worker: int) -> int:
        """Return the epoch of the pass that *worker* begins; without torch's *seed* it is the only one."""

        def begun(last: dict[str, Any]) -> dict[str, Any]:
            if seed is not None and last.get("seed") == seed and worker not in last["begun"]:
                return {**last, "begun": [*last["begun"], worker]}
            return {"seed": seed, "epoch": last["next"], "next": last["next"] + 1, "begun": [worker]}

        return int(self._change(begun)["epoch"])

    def resumed(self, epoch: int) -> None:
        self._change(lambda last: {**last, "epoch": epoch, "next": epoch + 1})

    def _change(self, change: Any) -> dict[str, Any]:
        with open(self._path, "r+") as file, held(file):
            passes = json.loads(file.read() or "{}")
            begin = {"next": passes.get(self._maker, {"next": 0})["next"]}
            here = _training_process()
            passes[here] = now = change(passes.get(here, begin))
            file.seek(0)
            file.truncate()
            file.write(json.dumps(passes))
        return dict(now)


def _training_process() -> str:
    """Return the id of the process that this is, or that this is a worker of."""
    parent = multiprocessing.parent_process() if get_worker_info() else None
    return str(parent.pid if parent else os.getpid())


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:
        with suppress(FileNotFoundError):
            os.unlink(path)
