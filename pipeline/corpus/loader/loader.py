"""The loader of a training loop: equal counts on every rank and worker, and a resume that is exact."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from pipeline.corpus.loader.arguments import expect_count, expect_flag, expect_number, expect_one_of, shown
from pipeline.corpus.loader.buckets import Bucketed, Size, check_sizes
from pipeline.corpus.loader.corpus import IMAGE
from pipeline.corpus.loader.order import Order, Rounds, Share
from pipeline.corpus.loader.progress import Progress, check_state
from pipeline.corpus.loader.ranks import Ranks
from pipeline.corpus.loader.reading import SIZE, Reader, Received, Transform
from pipeline.corpus.loader.source import Source, expect_source
from pipeline.corpus.loader.transforms import fit
from pipeline.errors import ConfigError, LacunaError

Remainder = Literal["drop", "pad"]
REMAINDERS = ("drop", "pad")
CONTEXTS = ("fork", "spawn", "forkserver")
KIND = "lacuna loader 1"  # of a state
NOT_PICKLED = ("_order", "_shares", "_reader", "_loader")


class Loader:
    """Batches of *source* (a ``Corpus`` or ``Mixture``): dicts of its columns (see ``reading.collate``).

    Each pass is an epoch: the next one, unless ``set_epoch`` says which. All ranks together take ``world_size *
    batch_size`` samples a step of the one order that *seed* and epoch name (see ``order``); each rank and each of its
    *workers* has the same number of batches. What does not divide, fewer samples than ranks x workers x batch, is
    dropped, or with ``pad`` filled up from the beginning of the epoch.

    *buckets* are sizes (height, width): a batch is then of one of them, which its samples have as ``size``, and without
    a *transform* its pictures are brought to it (see ``buckets``, also for what is left over).

    *transform* is given a sample (a dict) in the worker and returns one; what it draws from torch's or Python's random
    generator depends on seed, epoch and position alone. Rank and world size are torch.distributed's where it is
    initialised, unless given. *context* is how workers are started: ``spawn`` for an object store, whose client does
    not survive a fork, else the platform's way. *prefetch* is the number of batches that each worker has ready.

    ``state_dict`` says what the loop has received; any rank's may be loaded by all, at other numbers of ranks, workers
    and samples a batch. ``skipped`` counts damaged samples of this rank in whose place others were given.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        workers: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        remainder: Remainder = "drop",
        buckets: Sequence[Size] | None = None,
        transform: Transform | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        context: str | None = None,
        prefetch: int = 2,
        pin_memory: bool = False,
    ):
        expect_source(source)
        expect_count("batch_size", batch_size, 1)
        expect_count("workers", workers, 0)
        expect_count("prefetch", prefetch, 1)
        expect_number("seed", seed)
        expect_flag("shuffle", shuffle)
        expect_flag("pin_memory", pin_memory)
        expect_one_of("remainder", remainder, REMAINDERS)
        if context is not None:
            expect_one_of("context", context, CONTEXTS)
        if transform is not None and not callable(transform):
            raise ConfigError(f"transform is {shown(transform)}; expected a function of a sample")
        if context == "fork" and source.remote and workers:
            raise ConfigError("context: an object store's client does not survive a fork; expected spawn or forkserver")
        self.batch_size, self.workers, self.seed, self.shuffle = batch_size, workers, seed, shuffle
        self.skipped = 0
        self._ranks, self._pad = Ranks(rank, world_size), remainder == "pad"
        self._source, self._transform, self._buckets = source, transform, buckets
        self._context, self._prefetch, self._pin_memory = context, prefetch, pin_memory
        self._progress = Progress()
        self._begin()

    def _begin(self) -> None:
        """Make what cannot be pickled."""
        source, workers = self._source, self.workers
        self._order = self._ordered()
        self._shares = _Shares()
        started = self._context or ("spawn" if source.remote else None)
        transform = to_bucket if self._buckets is not None and self._transform is None else self._transform
        self._reader = Reader(source, transform, self.seed)
        self._loader = DataLoader(
            self._reader,
            batch_sampler=self._shares,
            num_workers=workers,
            collate_fn=_as_it_is,
            persistent_workers=workers > 0 and started in ("spawn", "forkserver"),  # they take seconds to start
            multiprocessing_context=started if workers else None,
            prefetch_factor=self._prefetch if workers else None,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # the training process's own draws are not disturbed
        )

    def __getstate__(self) -> dict[str, Any]:
        """As processes get it that are spawned later; there it asks for their rank, unless it was given one."""
        return {name: value for name, value in vars(self).items() if name not in NOT_PICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def _ordered(self) -> Order:
        order = self._source.order(self.seed, self.shuffle)
        if self._buckets is None:
            return order
        check_sizes(self._buckets)
        if self._transform is None and (IMAGE not in self._source.columns or self._source.decode == "bytes"):
            raise ConfigError("buckets: expected pictures that are decoded, or a transform of what is read instead")
        return Bucketed(order, *self._source.sizes(), self._buckets, self.batch_size, self._pad)

    @property
    def epoch(self) -> int:
        """The epoch of the pass that is under way, or of the next."""
        return self._progress.epoch

    def __len__(self) -> int:
        """The batches of this rank in the whole of ``epoch``."""
        return self._rounds(self.epoch)[1].steps(0)

    @property
    def left(self) -> int:
        """The batches of this rank from what was received to the end of the epoch: those a resume will give."""
        return self._rounds(self.epoch)[1].steps(self._progress.position)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # With the first batch, not here, a pass begins: frameworks make iterators that they do not use.
        epoch, start = self._progress.next()
        rank, rounds = self._rounds(epoch)
        self._progress.begin()
        steps, workers = rounds.steps(start), self.workers

        def shares() -> Iterator[Share]:
            readers = max(1, workers)
            opening = self._order.opening(epoch, start, rounds.step, rank, rounds.world)
            for step in range(steps):
                at = start + step * rounds.step
                share = self._order.share(epoch, at, at + rounds.step, rank, rounds.world)
                if step < readers:
                    share = replace(share, ahead=np.append(opening[step::readers], share.ahead))
                yield share

        batches: Iterable[Received | LacunaError]
        if workers or self._pin_memory:
            self._shares.now, batches = shares(), self._loader
        else:  # what a DataLoader does besides costs a fiftieth of reading small pictures
            batches = map(self._reader.__getitems__, shares())
        for step, received in enumerate(batches, 1):
            if isinstance(received, LacunaError):
                raise received
            # Counted before it is given: whoever asks for the state in the loop's body has this batch.
            self._progress.position = start + step * rounds.step
            self.skipped += received.skipped
            yield received.batch
        self._progress.set_epoch(epoch + 1)

    def _rounds(self, epoch: int) -> tuple[int, Rounds]:
        rank, world = self._ranks.settled()
        return rank, Rounds(self._order.length_in(epoch), self.batch_size, world, self.workers, self._pad)

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass be *epoch*, from its beginning; from the resumed position where that is of this epoch."""
        expect_count("epoch", epoch, 0)
        self._progress.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return what was received, as plain JSON; equal on all ranks that have received as many batches."""
        return {
            "kind": KIND,
            "corpus": self._source.fingerprint,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "buckets": self._order.buckets,
            "epoch": self._progress.epoch,
            "position": self._progress.position,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where *state* was saved. Raises ``CorpusError`` where that is no place in this order."""
        check_state(state, self.state_dict())
        self._progress.resume(state["epoch"], state["position"])


class _Shares(Sampler[Any]):
    """Hands the DataLoader the shares of the pass that begins, where its types have lists of numbers."""

    now: Iterator[Share] = iter(())

    def __iter__(self) -> Iterator[Any]:
        return self.now


def to_bucket(sample: dict[str, Any]) -> dict[str, Any]:
    """Return *sample* with its picture in the size of its batch."""
    return {**sample, IMAGE: fit(sample[IMAGE], sample[SIZE])}


def _as_it_is(received: Any) -> Any:
    return received
