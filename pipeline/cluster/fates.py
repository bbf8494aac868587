"""What becomes of shards: committed, failed, refused by storage, lost with their workers; and when a run has no sense.

Knows nothing of leases; its owner takes a task out of its worker's hands before its fate is told here. Whether a shard
is committed storage says, aside. Until it has, the shard is *in doubt*: nobody works on it, and it waits in no queue.
Invariant: a shard that has left a worker's hands is committed, given up, in doubt, or in one queue of ``Triage``.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial

from pipeline.cluster.aside import Aside, Found
from pipeline.cluster.book import Open
from pipeline.cluster.history import History
from pipeline.cluster.judgement import FirstTasks, Places, place
from pipeline.cluster.protocol import Counts, Failure, FailureKind, Report
from pipeline.cluster.shardset import ShardSet
from pipeline.cluster.triage import Triage, last_line
from pipeline.errors import StoreError

STORAGE_FAILURES = 3  # commits of any workers, in a row: one machine is not all
STORAGE_PATIENCE = 120.0  # seconds that these must span as well: hundreds of workers fail so often in one bad moment


class Fates:
    """Of the *shards* of a run. *closed* is called with a shard that needs no more work: it is taken out of whoever's
    hands. *live* are the places where workers are."""

    def __init__(
        self,
        shards: int,
        *,
        triage: Triage,
        history: History,
        places: Places,
        first: FirstTasks,
        aside: Aside,
        closed: Callable[[int], None],
        live: Callable[[], Collection[str]],
        clock: Callable[[], float],
    ):
        self._shards, self._triage, self._history, self._places = shards, triage, history, places
        self._first, self._aside, self._closed, self._live, self._clock = first, aside, closed, live, clock
        self.done = ShardSet(shards)
        self.in_doubt: set[int] = set()
        self.counts: dict[str, int] = {}
        self.stopped: str | None = None  # why no more work is to be given out
        self._storage_failures, self._storage_fails_since = 0, clock()  # counted since the last commit

    @property
    def finished(self) -> bool:
        """Is every shard committed or given up?"""
        return len(self.done) + len(self._history.given_up) >= self._shards

    def stop(self, reason: str) -> None:
        """Give out no more work."""
        self.stopped = self.stopped or reason

    def committed(self, shard: int, counts: Counts) -> None:
        """It is done; *counts* are its samples per status."""
        self.done.add(shard)
        self.in_doubt.discard(shard)
        self._history.given_up.pop(shard, None)
        for status, number in counts.items():
            self.counts[status] = self.counts.get(status, 0) + number

    def completed(self, report: Report, worker: str) -> None:
        """A worker has committed the shard that it had."""
        self.committed(report.shard, report.counts)
        self._places.succeeded(report.shard, place(worker))
        self._first.concluded(report.shard, None)
        self._storage_failures = 0

    def claimed(self, shard: int) -> None:
        """Somebody who does not have it reports on it: it may be committed all the same, published or not."""
        if shard not in self.done:
            self._ask([shard], lambda: None)

    def probed(self, opened: Open, survived: bool) -> None:
        """A probe has ended."""
        self._triage.probed(opened.shard, survived=survived)
        if survived:
            self._first.survived()

    def ended_badly(self, opened: Open, report: Report) -> None:
        """An attempt has ended with an error, before its commit or after."""
        self._doubt([opened], partial(self._ended_badly, opened, report))

    def dropped(self, opened: Open) -> None:
        """Its worker does no more of it, through no fault of the shard. What was not begun is not committed."""
        if opened.started and not opened.probe:
            self._doubt([opened], partial(self._put_back, opened.shard))
        else:
            self._triage.put_back(opened.shard)

    def lost(self, held: Sequence[Open], kind: FailureKind, message: str) -> None:
        """A worker that *held* these is gone by ``crash``, ``node_loss`` or ``timeout``: what it ran is charged, and
        what it held is not.

        Where it ran one shard and still committed another, or several in one lease, nobody knows which did it: none is
        charged, but each is run alone next time, and then it is known.
        """
        for opened in held:
            if not opened.started:
                self._triage.put_back(opened.shard)
        started = [opened for opened in held if opened.started]
        self._doubt(started, lambda: self._lost([o for o in started if o.shard not in self.done], kind, message))

    # In doubt

    def _doubt(self, left: Sequence[Open], then: Callable[[], None]) -> None:
        """Ask about what was *left*; continue with *then* once ``done`` has the answer."""
        self.in_doubt.update(opened.shard for opened in left)

        def answered() -> None:
            self.in_doubt.difference_update(opened.shard for opened in left)
            then()

        asked = [opened.shard for opened in left if not opened.probe]
        if asked:
            self._ask(asked, answered)
        else:
            answered()

    def _ask(self, shards: Sequence[int], then: Callable[[], None]) -> None:
        def answered(found: Found) -> None:
            for shard in shards:
                if shard in found and shard not in self.done:
                    self._closed(shard)
                    self._triage.withdraw(shard)
                    self.committed(shard, found[shard])
            then()

        self._aside.ask(shards, answered)

    def _put_back(self, shard: int) -> None:
        if shard not in self.done:
            self._triage.put_back(shard)

    def _lost(self, left: Sequence[Open], kind: FailureKind, message: str) -> None:
        ambiguous = len(left) > 1 and kind is not FailureKind.node_loss
        for opened in left:
            if opened.probe and kind is FailureKind.node_loss:
                self._triage.put_back(opened.shard)
            elif ambiguous:
                self._triage.put_back(opened.shard, watch=True)
            elif opened.probe:
                self._triage.probed(opened.shard, survived=False)
            else:
                self._charge(opened, kind, message)

    def _ended_badly(self, opened: Open, report: Report) -> None:
        error = report.error or ""
        if report.full:
            self._full(opened, report)
        elif opened.shard in self.done:
            self._say(opened.shard, f"committed, and published when the run ends: {last_line(error)}")
        elif report.storage:
            self._refused(opened, error)
        else:
            self._charge(opened, FailureKind.error, error)

    def _charge(self, opened: Open, kind: FailureKind, message: str) -> None:
        failure = Failure(shard=opened.shard, kind=kind, message=message, attempt=opened.attempt, worker=opened.worker)
        self.in_doubt.add(opened.shard)
        self._aside.write(failure, partial(self._charged, failure))

    def _charged(self, failure: Failure) -> None:
        """It is written down, and counts from now on."""
        shard = failure.shard
        self._history.count(failure)
        if shard in self.done:  # by a doubled worker, meanwhile
            return
        self.in_doubt.discard(shard)
        self._triage.failed(failure)
        if failure.kind is not FailureKind.node_loss:
            self._places.failed(shard, place(failure.worker))
            self._conclude(shard, failure.message)

    def _conclude(self, shard: int, message: str) -> None:
        """A shard has failed: was it one too many of the first?"""
        reason = self._first.concluded(shard, message)
        if reason is None:
            return
        pardoned = sorted(self._first.failed) if self.stopped is None else [shard]  # which was under way still
        self.stop(reason)
        for failed in pardoned:
            self._history.add(Failure(shard=failed, kind=FailureKind.pardoned, message="the run was stopped"))

    def _full(self, opened: Open, report: Report) -> None:
        """Nothing more can be stored: stop drawing. Where only the worker's machine is full, stop drawing there."""
        self._put_back(opened.shard)
        at = place(opened.worker)
        if not report.storage:
            self._places.condemn(at)
            if self._places.bad(at, self._live):
                self._triage.log.append(f"{at} is given nothing more, while others work: {report.error}")
                return
        self.stop(f"{report.error}; once there is room, the same command goes on")

    def _refused(self, opened: Open, message: str) -> None:
        """Storage did not take a shard, or an endpoint did not judge it: no fault of its own. Another place may have
        more luck, or nobody has."""
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
