"""Who holds what: workers, their leases, and the tasks of these not yet reported. Pure bookkeeping, no decisions."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.cluster.judgement import place
from pipeline.cluster.protocol import Held

SILENCE = 600.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Open:
    """One task that was in a worker's hands."""

    shard: int
    attempt: str
    worker: str
    probe: bool
    started: bool  # False where the worker had not begun the lease


@dataclass(kw_only=True)
class _Lease:
    open: dict[str, int]  # attempt -> shard
    probe: bool
    started: float | None = None  # or when a task of it was last reported; seconds of the coordinator's clock


@dataclass(kw_only=True)
class WorkerState:
    """One worker as the coordinator believes it to be."""

    leases: dict[str, _Lease] = field(default_factory=dict)
    draining: bool = False
    heard: float = math.inf  # when it last called; seconds of the coordinator's clock

    @property
    def prefetched(self) -> bool:
        """Does it hold a lease that it has not begun?"""
        return any(lease.started is None for lease in self.leases.values())


class Book:
    """Invariant: an attempt is in ``_where`` exactly while it is open in one lease of one worker."""

    def __init__(self) -> None:
        self.workers: dict[str, WorkerState] = {}
        self._where: dict[str, tuple[str, str]] = {}  # attempt -> (worker, lease id)
        self._attempts: defaultdict[int, set[str]] = defaultdict(set)  # shard -> open attempts at it
        self._drawn: dict[str, float] = {}  # attempt -> share of its samples; of open ones only
        self._compiling: dict[str, tuple[str, float]] = {}  # lease -> attempt that waits for code, and since when
        self._places: Counter[str] = Counter()  # workers there that are not draining
        self._unseen: list[str] = []  # workers that ``late`` has not looked at in this round

    def __len__(self) -> int:
        """Tasks in the hands of workers."""
        return len(self._where)

    def state(self, worker: str) -> WorkerState:
        """The state of *worker*, who may be new."""
        if worker not in self.workers:
            self.workers[worker] = WorkerState()
            self._count_place(worker, 1)
        return self.workers[worker]

    @property
    def live(self) -> Collection[str]:
        """The places of workers that are not draining."""
        return self._places.keys()

    def drain(self, workers: Container[str]) -> None:
        """These workers are draining, and no others."""
        for worker, state in self.workers.items():
            if state.draining != (worker in workers):
                state.draining = not state.draining
                self._count_place(worker, -1 if state.draining else 1)

    def _count_place(self, worker: str, change: int) -> None:
        self._places[place(worker)] += change
        if not self._places[place(worker)]:
            del self._places[place(worker)]

    def grant(self, worker: str, lease_id: str, tasks: Mapping[str, int], probe: bool = False) -> None:
        """Enter a new lease of the tasks ``attempt -> shard``."""
        self.state(worker).leases[lease_id] = _Lease(open=dict(tasks), probe=probe)
        self._where.update(dict.fromkeys(tasks, (worker, lease_id)))
        for attempt, shard in tasks.items():
            self._attempts[shard].add(attempt)

    def start(self, worker: str, lease_id: str, now: float) -> None:
        """The worker runs this lease; nothing happens if it is known to, or if the lease is not (any more) its own."""
        lease = self.state(worker).leases.get(lease_id)
        if lease is not None and lease.started is None:
            lease.started = now

    @property
    def drawn(self) -> float:
        """The shares of open tasks that are drawn, summed."""
        return sum(self._drawn.values())

    def draw(self, attempt: str, share: float) -> None:
        """So much of a task is drawn; nothing happens if it is in nobody's hands."""
        if attempt in self._where:
            self._drawn[attempt] = share

    @property
    def waits_for_code(self) -> bool:
        """Does any task wait for code of the model to be compiled or loaded?"""
        return bool(self._compiling)

    def compiling(self, attempt: str, begun: bool, now: float) -> None:
        """A task waits for code, from now or no more; nothing happens if it is in nobody's hands. While it waits, the
        time of its lease stands still."""
        if attempt not in self._where:
            return
        worker, lease_id = self._where[attempt]
        if begun:
            self._compiling[lease_id] = attempt, now
        elif lease_id in self._compiling:
            _, since = self._compiling.pop(lease_id)
            lease = self.workers[worker].leases[lease_id]
            if lease.started is not None:
                lease.started += now - max(since, lease.started)

    def close(self, attempt: str, now: float | None = None) -> Open | None:
        """Take one task out of its worker's hands; None if it is in nobody's.

        With *now*, it is the worker that has ended it: the time of the lease's other tasks begins there.
        """
        if attempt not in self._where:
            return None
        self._drawn.pop(attempt, None)
        worker, lease_id = self._where.pop(attempt)
        leases = self.workers[worker].leases
        lease = leases[lease_id]
        shard = lease.open.pop(attempt)
        self._attempts[shard].discard(attempt)
        if not self._attempts[shard]:
            del self._attempts[shard]
        if now is not None and lease.started is not None:
            lease.started = now
        if lease_id in self._compiling and self._compiling[lease_id][0] == attempt:
            del self._compiling[lease_id]
        if not lease.open:
            del leases[lease_id]
        return Open(shard=shard, attempt=attempt, worker=worker, probe=lease.probe, started=lease.started is not None)

    def close_shard(self, shard: int) -> None:
        """Take a shard out of whoever's hands: it needs no more work."""
        for attempt in list(self._attempts.get(shard, ())):
            self.close(attempt)

    def unheld(self, worker: str, holding: Sequence[str]) -> list[Open]:
        """Take back what the worker was granted and does not name: the answer was lost on its way."""
        leases = self.state(worker).leases
        attempts = [a for lease_id, lease in leases.items() if lease_id not in holding for a in lease.open]
        return self._close_all(attempts)

    def remove(self, worker: str) -> list[Open]:
        """Forget a worker and return what it held."""
        if worker not in self.workers:
            return []
        attempts = [attempt for lease in self.workers[worker].leases.values() for attempt in lease.open]
        held = self._close_all(attempts)
        if not self.workers.pop(worker).draining:
            self._count_place(worker, -1)
        return held

    def adopt(self, held: Mapping[str, Sequence[Held]], closed: Container[int], now: float) -> set[int]:
        """Enter what workers hold of a predecessor's leases, each shard once, and return those shards."""
        adopted: set[int] = set()
        for worker, leases in held.items():
            self.state(worker).heard = now
            for lease in leases:
                tasks = {a: shard for shard, a in lease.attempts if shard not in closed and shard not in adopted}
                if tasks:
                    self.grant(worker, lease.id, tasks)
                    self.start(worker, lease.id, now)
                    adopted |= set(tasks.values())
        return adopted

    def late(self, now: float, deadline: Callable[[int], float], compiling: float, most: int) -> list[str]:
        """Workers that have run a lease for longer than ``deadline(tasks open in it)`` seconds since they began it or
        last reported a task of it, or wait for code for longer than *compiling* seconds, or run none and are silent:
        those ask every few seconds.

        It looks at up to *most* workers, and in the next calls at those after them.
        """

        def is_late(state: WorkerState) -> bool:
            began = [
                (self._compiling[name][1], compiling)
                if name in self._compiling
                else (lease.started, deadline(len(lease.open)))
                for name, lease in state.leases.items()
                if lease.started is not None
            ]
            return any(now - since > most for since, most in began) or (not began and now - state.heard > SILENCE)

        self._unseen = self._unseen or list(self.workers)
        looked_at = [self._unseen.pop() for _ in range(min(most, len(self._unseen)))]
        return [worker for worker in looked_at if worker in self.workers and is_late(self.workers[worker])]

    def _close_all(self, attempts: Sequence[str]) -> list[Open]:
        return [opened for attempt in attempts if (opened := self.close(attempt)) is not None]
