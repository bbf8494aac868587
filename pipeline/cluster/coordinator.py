"""Hands out leases and counts. Holds no truth: storage does, and a new coordinator goes on from what it lists there.

Knows nothing of Ray, processes or stores: calls arrive as method calls, time as ``clock``, storage as two callbacks.
Not thread-safe: its owner calls it from one thread. The one thread that it begins reads prompts (``Ahead``).

The protocol. A worker calls ``next`` with what it has finished, the ids of the leases it still holds, and the one of
them that it runs; so one call completes, starts and pulls. What it was granted but does not name was lost on the way
to it, and is leased anew. An attempt is named once and for all; a report on an attempt that is not leased (any more) is
refused, except for the fact that it committed, which storage confirms. Invariants:
- every unfinished shard either waits in one queue of ``Triage`` or is open in one lease of the ``Book``;
- a failure is charged only to shards that were running when it happened, and to none that had committed. That storage
  does not take a shard is charged to none: it is drawn again, and after minutes of nothing else the run ends.
An exception, of storage above all, is raised again by every later call: the first invariant may no longer hold then,
and a worker that reports, or the driver that mourns one, does not wait to hear of it.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from pipeline.cluster.ahead import Ahead
from pipeline.cluster.book import SILENCE, Book, Open
from pipeline.cluster.history import History
from pipeline.cluster.judgement import FirstTasks, Places, place
from pipeline.cluster.pace import Pace
from pipeline.cluster.protocol import (
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
from pipeline.cluster.triage import Triage, last_line
from pipeline.errors import StoreError
from pipeline.prompts import RowError

FINISHED = "finished"
CALLS_OF_THE_IDLE = 100.0  # a second, from all waiting workers together
SHORTEST_WAIT = 0.2  # seconds
WAIT_OF_THE_PARKED = 30.0  # seconds
STORAGE_FAILURES = 3  # commits of any workers, in a row: one machine is not all
STORAGE_PATIENCE = 120.0  # seconds that these must span as well: hundreds of workers fail so often in one bad moment
STALL = 10.0  # seconds between two ticks: the driver has one made four times a second

P = ParamSpec("P")
R = TypeVar("R")


def _final(method: "Callable[Concatenate[Coordinator, P], R]") -> "Callable[Concatenate[Coordinator, P], R]":
    """After an exception in one call, every call raises it."""

    @wraps(method)
    def call(self: "Coordinator", *args: P.args, **kwargs: P.kwargs) -> R:
        if self._broken is not None:
            raise self._broken
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self._broken = error
            raise

    return call


class Coordinator:
    """Leases the shards of *plan* that *done* does not list, until each is committed or given up."""

    def __init__(
        self,
        plan: Planner,
        *,
        done: Mapping[int, Counts],
        past: Iterable[Failure],
        record: Callable[[Failure], None],
        committed: Callable[[int], Counts | None],
        token: str,
        error_budget: int,
        node_loss_budget: int,
        shard_timeout: float | None = None,
        held: Mapping[str, Sequence[Held]] | None = None,
        ahead: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ):
        """*record* writes a failure down, *committed* asks storage about one shard (None: not committed). *token* tells
        this coordinator's attempts from any other's. *held* is what workers hold of a predecessor's leases. *ahead*
        shards are planned before they are due."""
        self._plan, self._committed, self._token, self._clock = Ahead(plan), committed, token, clock
        self._history = History(past, record)
        self._pace = Pace(shard_timeout)
        self._book = Book()
        self._places = Places()
        self._triage = Triage(self._plan, self._history, error_budget, node_loss_budget)
        self._done: set[int] = set()
        self._counts: dict[str, int] = {}
        for shard, counts in done.items():
            self._finish(shard, counts)
        self._resumed = len(self._done)
        closed = self._done | self._history.given_up.keys()
        self._triage.fill(closed | self._book.adopt(held or {}, closed, clock()))
        self._first = FirstTasks(plan.shards, known=[s for s in range(plan.shards) if self._history.errors(s)])
        self._idle: set[str] = set()
        self._gone: set[str] = set()  # workers declared lost: they are told to stop if they speak again
        self._hung: set[str] = set()
        self._attempts = 0
        self._largest = 1  # lease, in shards
        self._ticked = clock()
        self._images, self._device_seconds = 0, 0.0
        self._stopped: str | None = None
        self._storage_failures, self._storage_fails_since = 0, clock()  # counted since the last commit
        self._broken: Exception | None = None
        self._ahead = ahead
        self._plan.expect(self._triage.due(ahead))

    # What workers call

    @_final
    def next(
        self, worker: str, done: Sequence[Report] = (), holding: Sequence[str] = (), running: str | None = None
    ) -> Lease | Wait | Stop:
        """Take in reports and hand out work; see the module's head for the protocol."""
        self.report(worker, done)
        self.tick()
        if worker in self._gone:
            return Stop(reason="counted as lost")
        state = self._book.state(worker)
        state.heard = self._clock()
        for opened in self._book.unheld(worker, holding):
            self._put_back(opened)
        if running is not None:
            self._book.start(worker, running, self._clock())
        if self._stopped is not None or self._finished():
            return Stop(reason=self._stopped or FINISHED)
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
        if state.draining or len(self._idle) > max(1, len(self._book)):
            # It would be spare even if all that is under way failed: its GPU is of more use elsewhere.
            self._forget(worker)
            return Stop(reason="draining" if state.draining else "no work left for this worker")
        return Wait(seconds=max(SHORTEST_WAIT, len(self._idle) / CALLS_OF_THE_IDLE))

    @_final
    def report(self, worker: str, done: Sequence[Report], drawn: Drawn | None = None) -> None:
        """Take in reports, and how far the task at work has come, without asking for work."""
        if drawn is not None:
            self._images += drawn.images
            self._book.draw(drawn.attempt, drawn.share)
        for report in done:
            opened = self._book.close(report.attempt, self._clock())
            if opened is None:
                # Refused, but a commit that is there is there, published or not.
                if report.shard not in self._done:
                    self._settle(report.shard)
            elif opened.probe:
                self._triage.probed(opened.shard, survived=report.error is None)
                if report.error is None:
                    self._first.survived()
            elif report.error is None:
                self._complete(report, worker)
            elif self._settle(opened.shard):
                self._say(opened.shard, f"committed, and published when the run ends: {last_line(report.error)}")
            elif report.storage:
                self._refused(opened, report.error)
            else:
                self._fail(opened, FailureKind.error, report.error)

    @_final
    def leave(self, worker: str) -> None:
        """The worker goes of its own accord, and does no more of what it holds."""
        for opened in self._forget(worker):
            self._put_back(opened)

    # What the owner of the workers calls

    @_final
    def lost(self, worker: str, kind: FailureKind, message: str) -> None:
        """A worker is gone by ``crash``, ``node_loss`` or ``timeout``: what it ran is charged, what it held is not.

        Where it ran one shard and still committed another, or several in one lease, nobody knows which did it: none is
        charged, but each is run alone next time, and then it is known.
        """
        self._gone.add(worker)
        held = [o for o in self._forget(worker) if o.probe or not self._settle(o.shard)]
        ambiguous = sum(o.started for o in held) > 1 and kind is not FailureKind.node_loss
        for opened in held:
            if not opened.started or (opened.probe and kind is FailureKind.node_loss):
                self._triage.put_back(opened.shard)
            elif ambiguous:
                self._triage.put_back(opened.shard, watch=True)
            elif opened.probe:
                self._triage.probed(opened.shard, survived=False)
            else:
                self._fail(opened, kind, message)

    def drain(self, workers: Collection[str]) -> None:
        """The machines of these workers will go away: they finish what they run and get nothing new."""
        for worker, state in self._book.workers.items():
            state.draining = worker in workers

    def stop(self, reason: str) -> None:
        """Give out no more work."""
        self._stopped = self._stopped or reason

    def close(self) -> None:
        """Nobody will ask again: plan nothing more ahead."""
        self._plan.close()

    @_final
    def tick(self) -> None:
        """Let go of workers past their deadline; at most once a second, because it looks at all of them.

        Where the coordinator itself stood still, their reports wait to be heard: that time counts for nobody.
        """
        now = self._clock()
        passed = now - self._ticked
        if passed < 1.0:
            return
        self._ticked = now
        if passed > STALL:
            self._book.forgive(passed, now)
        for worker in self._book.late(now, self._pace.deadline):
            self._hung.add(worker)
            self.lost(worker, FailureKind.timeout, "past its deadline, counted as hung")

    @_final
    def snapshot(self) -> Snapshot:
        """How the run stands; empties the log."""
        log, self._triage.log = self._triage.log, []
        return Snapshot(
            shards=self._plan.shards,
            done=len(self._done),
            resumed=self._resumed,
            leased=len(self._book),
            patience=max(SILENCE, self._pace.deadline(self._largest)),
            under_way=self._book.drawn,
            workers=len(self._book.workers),
            counts=dict(self._counts),
            images=self._images,
            device_seconds=self._device_seconds,
            hung=sorted(self._hung),
            parked=sorted(w for w in self._book.workers if self._places.bad(place(w), self._live)),
            given_up=dict(self._history.given_up),
            blamed=self._history.all_blamed(),
            stopped=self._stopped,
            finished=self._finished(),
            log=log,
        )

    # Leasing

    def _lease(self, worker: str, prefetch: bool) -> Lease | Wait | None:
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
    ) -> Lease | Wait:
        """Lease those of *shards* that can be planned, and give up the others; ``Wait`` if none can."""
        tasks = []
        for shard in shards:
            try:
                planned = self._plan.shard(shard)
            except RowError as error:  # and will be, for as long as the corpus has these prompts
                self._triage.give_up(shard, str(error))
                self._conclude(shard, str(error))
                continue
            self._attempts += 1
            attempt = f"{self._token}-{self._attempts}"
            tasks.append(Task(planned=planned, attempt=attempt, excluded=self._history.blamed(shard), probe=probe))
        self._plan.expect(self._triage.due(self._ahead))
        if not tasks:
            return Wait(seconds=SHORTEST_WAIT)
        self._largest = max(self._largest, len(tasks))
        lease_id = tasks[0].attempt
        self._book.grant(worker, lease_id, {t.attempt: t.planned.index for t in tasks}, probe=probe is not None)
        every = self._pace.report_every(len(self._book.workers))
        return Lease(id=lease_id, tasks=tuple(tasks), suspect=suspect, report_every=every)

    def _live(self) -> set[str]:
        return {place(worker) for worker, state in self._book.workers.items() if not state.draining}

    # What becomes of a task

    def _complete(self, report: Report, worker: str) -> None:
        self._finish(report.shard, report.counts)
        self._images += report.images
        self._device_seconds += report.device_seconds
        self._pace.measured(report.seconds)
        self._places.succeeded(report.shard, place(worker))
        self._first.concluded(report.shard, None)
        self._storage_failures = 0

    def _settle(self, shard: int) -> bool:
        """Ask storage whether *shard* is committed after all, and if so, have nobody work on it any more."""
        counts = self._committed(shard)
        if counts is None:
            return False
        self._book.close_shard(shard)
        self._triage.withdraw(shard)
        self._finish(shard, counts)
        return True

    def _put_back(self, opened: Open) -> None:
        if opened.probe or not self._settle(opened.shard):
            self._triage.put_back(opened.shard)

    def _finish(self, shard: int, counts: Counts) -> None:
        self._done.add(shard)
        self._history.given_up.pop(shard, None)
        for status, number in counts.items():
            self._counts[status] = self._counts.get(status, 0) + number

    def _fail(self, opened: Open, kind: FailureKind, message: str) -> None:
        failure = Failure(shard=opened.shard, kind=kind, message=message, attempt=opened.attempt, worker=opened.worker)
        self._triage.failed(failure)
        if kind is not FailureKind.node_loss:
            self._places.failed(opened.shard, place(opened.worker))
            self._conclude(opened.shard, message)

    def _conclude(self, shard: int, message: str) -> None:
        """A shard has failed: was it one too many of the first?"""
        reason = self._first.concluded(shard, message)
        if reason is not None and self._stopped is None:
            self.stop(reason)
            for failed in sorted(self._first.failed):
                self._history.add(Failure(shard=failed, kind=FailureKind.pardoned, message="the run was stopped"))

    def _refused(self, opened: Open, message: str) -> None:
        """Storage did not take a shard: no fault of its own. Another place may have more luck, or nobody has."""
        if self._storage_failures == 0:
            self._storage_fails_since = self._clock()
        self._storage_failures += 1
        passed = self._clock() - self._storage_fails_since
        if self._storage_failures >= STORAGE_FAILURES and passed >= STORAGE_PATIENCE:
            raise StoreError(
                f"{message}; {self._storage_failures} commits in a row failed in {passed:.0f} s, and the run ends: "
                "once that is mended, the same command goes on"
            )
        self._say(opened.shard, f"not committed, and to be drawn again: {message}")
        self._places.failed(opened.shard, place(opened.worker))
        self._triage.put_back(opened.shard, watch=True)

    def _say(self, shard: int, line: str) -> None:
        self._triage.log.append(f"shard {shard:06d}: {line}")

    def _forget(self, worker: str) -> list[Open]:
        self._idle.discard(worker)
        return self._book.remove(worker)

    def _finished(self) -> bool:
        return len(self._done) + len(self._history.given_up) >= self._plan.shards
