"""Hands out leases and counts. Holds no truth: storage does, and a new coordinator goes on from what it lists there.

Knows nothing of Ray, processes or stores: calls arrive as method calls, time as ``clock``, storage as two callbacks.
Not thread-safe: its owner calls it from one thread. Of the threads that it begins, one reads prompts (``Ahead``) and
one speaks with storage (``Aside``), so that no call waits for either longer than it must; a call costs the same however
many workers and shards there are.

The protocol. A worker calls ``next`` with what it has finished, the ids of the leases it still holds, and the one of
them that it runs; so one call completes, starts and pulls. What it was granted but does not name was lost on the way
to it, and is leased anew. An attempt is named once and for all; a report on an attempt that is not leased (any more) is
refused, except for the fact that it committed, which storage confirms. Invariants:
- every unfinished shard waits in one queue of ``Triage``, is open in one lease of the ``Book``, or is in doubt
  (``Fates``) until storage has said whether it is committed, or that a failure is written down;
- a failure is charged only to shards that were running when it happened, and to none that had committed. That storage
  does not take a shard is charged to none: it is drawn again, and after minutes of nothing else the run ends; at once
  where storage is full.
An exception, of storage above all, is raised again by every later call: the first invariant may no longer hold then,
and a worker that reports, or the driver that mourns one, does not wait to hear of it.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from pipeline.cluster.ahead import Ahead
from pipeline.cluster.aside import Aside, Found
from pipeline.cluster.book import SILENCE, Book, Open
from pipeline.cluster.fates import Fates
from pipeline.cluster.final import final_failure
from pipeline.cluster.history import History
from pipeline.cluster.judgement import FirstTasks, Places, place
from pipeline.cluster.pace import Pace
from pipeline.cluster.protocol import (
    Compiling,
    Counts,
    Drawn,
    Failure,
    FailureKind,
    Held,
    Lease,
    Planner,
    Report,
    Snapshot,
    Stop,
    Task,
    Wait,
)
from pipeline.cluster.shardset import ShardSet
from pipeline.cluster.triage import Triage

FINISHED = "finished"
CALLS_OF_THE_IDLE = 100.0  # a second, from all waiting workers together
SHORTEST_WAIT = 0.2  # seconds
WAIT_OF_THE_PARKED = 30.0  # seconds
STALL = 10.0  # seconds between two calls: the driver makes four a second
LOOKED_AT = 100  # workers a call, whether they are late: 10,000 in half a minute, of the driver's calls alone


class Coordinator:
    """Leases the shards of *plan* that *done* does not list, until each is committed or given up."""

    def __init__(
        self,
        plan: Planner,
        *,
        done: Mapping[int, Counts],
        past: Iterable[Failure],
        record: Callable[[Failure], None],
        committed: Callable[[Collection[int]], Found],
        token: str,
        error_budget: int,
        node_loss_budget: int,
        shard_timeout: float | None = None,
        load_timeout: float = math.inf,
        held: Mapping[str, Sequence[Held]] | None = None,
        ahead: int = 1,
        clock: Callable[[], float] = time.monotonic,
        threads: Executor | None = None,
    ):
        """*record* writes a failure down, *committed* asks storage which of some shards are committed; both are called
        on *threads*, and *record* also by the caller. *token* tells this coordinator's attempts from any other's.
        *load_timeout* bounds, in seconds, how long a task may wait for code to be compiled, which its deadline leaves
        out. *held* is what workers hold of a predecessor's leases. *ahead* shards are planned before they are due."""
        self._plan, self._token, self._clock = Ahead(plan), token, clock
        self._called, self._stood_still = clock(), 0.0
        self._history = History(past, record)
        self._pace = Pace(shard_timeout)
        self._load_timeout = load_timeout
        self._book = Book()
        self._places = Places()
        self._aside = Aside(committed, record, threads or ThreadPoolExecutor(1, "storage"))
        self._triage = Triage(self._plan, self._history, error_budget, node_loss_budget)
        self._first = FirstTasks(plan.shards, known=self._history.failed())
        self._fates = Fates(
            plan.shards,
            triage=self._triage,
            history=self._history,
            places=self._places,
            first=self._first,
            aside=self._aside,
            closed=self._book.close_shard,
            live=self._live,
            clock=clock,
        )
        for shard, counts in done.items():
            self._fates.committed(shard, counts)
        self._resumed = len(self._fates.done)
        closed = ShardSet(plan.shards)
        for shard in (*self._fates.done, *self._history.given_up):
            closed.add(shard)
        for shard in self._book.adopt(held or {}, closed, self._now()):
            closed.add(shard)
        self._triage.fill(closed)
        self._idle: set[str] = set()
        self._gone: set[str] = set()  # workers declared lost: they are told to stop if they speak again
        self._hung: set[str] = set()
        self._attempts = 0
        self._largest = 1  # lease, in shards
        self._images, self._device_seconds = 0, 0.0
        self.broken: Exception | None = None
        self._ahead = ahead
        self._plan.expect(self._triage.due(ahead))

    # What workers call

    @final_failure
    def next(
        self, worker: str, done: Sequence[Report] = (), holding: Sequence[str] = (), running: str | None = None
    ) -> Lease | Wait | Stop:
        """Take in reports and hand out work; see the module's head for the protocol."""
        self.report(worker, done)
        self.tick()
        if worker in self._gone:
            return Stop(reason="counted as lost")
        state = self._book.state(worker)
        state.heard = self._now()
        for opened in self._book.unheld(worker, holding):
            self._fates.dropped(opened)
        if running is not None:
            self._book.start(worker, running, self._now())
        if self._fates.stopped is not None or self._fates.finished:
            return Stop(reason=self._fates.stopped or FINISHED)
        if self._places.bad(place(worker), self._live):
            return Wait(seconds=WAIT_OF_THE_PARKED)
        if not (state.draining or state.prefetched):
            lease = self._lease(worker, prefetch=running is not None)
            if lease is not None:
                self._idle.discard(worker)
                return lease
        if state.leases:
            return Wait(seconds=SHORTEST_WAIT)
        self._idle.add(worker)
        if state.draining or len(self._idle) > max(1, len(self._book) + len(self._fates.in_doubt)):
            # It would be spare even if all that is under way failed: its GPU is of more use elsewhere.
            self._forget(worker)
            return Stop(reason="draining" if state.draining else "no work left for this worker")
        return Wait(seconds=max(SHORTEST_WAIT, len(self._idle) / CALLS_OF_THE_IDLE))

    @final_failure
    def report(self, worker: str, done: Sequence[Report], word: Drawn | Compiling | None = None) -> None:
        """Take in reports, and how far the task at work has come or what it waits for, without asking for work."""
        if isinstance(word, Drawn):
            self._images += word.images
            self._book.draw(word.attempt, word.share)
        elif word is not None:
            self._book.compiling(word.attempt, word.begun, self._now())
            self._triage.log += [f"worker {worker}: {line}" for line in word.said]
        for report in done:
            opened = self._book.close(report.attempt, self._now())
            if opened is None:
                self._fates.claimed(report.shard)  # refused, but a commit that is there is there
            elif opened.probe:
                self._fates.probed(opened, survived=report.error is None)
            elif report.error is None:
                self._complete(report, worker)
            else:
                self._fates.ended_badly(opened, report)

    @final_failure
    def leave(self, worker: str) -> None:
        """The worker goes of its own accord, and does no more of what it holds."""
        for opened in self._forget(worker):
            self._fates.dropped(opened)

    # What the owner of the workers calls

    @final_failure
    def lost(self, worker: str, kind: FailureKind, message: str) -> None:
        """A worker is gone by ``crash``, ``node_loss`` or ``timeout``."""
        self._gone.add(worker)
        self._fates.lost(self._forget(worker), kind, message)

    def drain(self, workers: Collection[str]) -> None:
        """The machines of these workers will go away: they finish what they run and get nothing new."""
        self._book.drain(workers)

    def stop(self, reason: str) -> None:
        """Give out no more work."""
        self._fates.stop(reason)

    def close(self) -> None:
        """Nobody will ask again: plan nothing more ahead, and ask nothing."""
        self._plan.close()
        self._aside.close()

    @final_failure
    def tick(self) -> None:
        """Let go of workers past their deadline."""
        for worker in self._book.late(self._now(), self._pace.deadline, self._load_timeout, LOOKED_AT):
            self._hung.add(worker)
            self.lost(worker, FailureKind.timeout, "past its deadline, counted as hung")

    @final_failure
    def snapshot(self) -> Snapshot:
        """How the run stands; empties the log."""
        log, self._triage.log = self._triage.log, []
        return Snapshot(
            shards=self._plan.shards,
            done=len(self._fates.done),
            resumed=self._resumed,
            leased=len(self._book),
            in_doubt=len(self._fates.in_doubt),
            patience=max(
                SILENCE, self._pace.deadline(self._largest), self._load_timeout if self._book.waits_for_code else 0.0
            ),
            under_way=self._book.drawn,
            workers=len(self._book.workers),
            counts=dict(self._fates.counts),
            images=self._images,
            device_seconds=self._device_seconds,
            hung=sorted(self._hung),
            parked=self._parked(),
            given_up=dict(self._history.given_up),
            blamed=self._history.all_blamed(),
            stopped=self._fates.stopped,
            finished=self._fates.finished,
            log=log,
        )

    # Leasing

    def _lease(self, worker: str, prefetch: bool) -> Lease | None:
        if not prefetch and (self._first.over or not self._triage.untried):
            # While the first tasks run, untried shards come first: only different shards tell whether the config is
            # wrong. A suspect is never prefetched: it should start with its worker's other work committed.
            here = place(worker)
            suspect = self._triage.pop_suspect(lambda shard: self._places.may_retry(shard, here, self._live))
            if suspect is not None:
                return self._grant(worker, [suspect], suspect=True, probe=self._triage.probe(suspect))
        workers, pending = len(self._book.workers), self._triage.pending
        if prefetch and pending < workers:
            return None  # the last shards go to whoever is free first
        shards = self._triage.pop(self._pace.lease_size(workers, pending))
        return self._grant(worker, shards) if shards else None

    def _grant(
        self, worker: str, shards: Sequence[int], suspect: bool = False, probe: frozenset[str] | None = None
    ) -> Lease:
        """Lease *shards*."""
        tasks = []
        for shard in shards:
            planned = self._plan.shard(shard)
            self._attempts += 1
            attempt = f"{self._token}-{self._attempts}"
            tasks.append(Task(planned=planned, attempt=attempt, excluded=self._history.blamed(shard), probe=probe))
        self._plan.expect(self._triage.due(self._ahead))
        self._largest = max(self._largest, len(tasks))
        lease_id = tasks[0].attempt
        self._book.grant(worker, lease_id, {t.attempt: t.planned.index for t in tasks}, probe=probe is not None)
        every = self._pace.report_every(len(self._book.workers))
        return Lease(id=lease_id, tasks=tuple(tasks), suspect=suspect, report_every=every)

    # Its own

    def notice(self) -> None:
        """Take in what storage has answered, and where nobody was heard because the coordinator itself stood still,
        count that time for nobody: reports wait to be heard."""
        now = self._clock()
        if now - self._called > STALL:
            self._stood_still += now - self._called
        self._called = now
        self._aside.take()

    def _now(self) -> float:
        """Seconds in which somebody could be heard."""
        return self._clock() - self._stood_still

    def _live(self) -> Collection[str]:
        return self._book.live

    def _parked(self) -> list[str]:
        bad = {at for at in self._places.suspects() if self._places.bad(at, self._live)}
        return sorted(worker for worker in self._book.workers if place(worker) in bad) if bad else []

    def _complete(self, report: Report, worker: str) -> None:
        self._images += report.images
        self._device_seconds += report.device_seconds
        self._pace.measured(report.seconds)
        self._fates.completed(report, worker)

    def _forget(self, worker: str) -> list[Open]:
        self._idle.discard(worker)
        return self._book.remove(worker)
