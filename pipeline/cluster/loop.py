"""The worker's side of the protocol: pull a lease, prefetch the next, run the tasks, report what they came to.

Knows nothing of Ray: how calls reach the coordinator is the ``Desk``'s affair. The calling thread drives the device;
commits end on the worker's own threads and are reported from there, when enough time has passed since the last call.
"""

import errno
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pipeline.cluster.protocol import Compiling, Drawn, Held, Lease, Report, Stop, Task, Wait
from pipeline.corpus.stores import Full
from pipeline.errors import EndpointError, StoreError
from pipeline.prompts import PlannedShard

if TYPE_CHECKING:
    from pipeline.worker import ShardResult

Answer = Lease | Wait | Stop
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # of the disk on which a tar is built
SECONDS_BETWEEN_WORDS = 1.0  # of pictures drawn, at least; many workers let more pass, as with reports


class Processor(Protocol):
    """The part of ``worker.Worker`` that the loop drives."""

    def process(
        self,
        planned: PlannedShard,
        attempt: str,
        excluded: frozenset[str] = ...,
        drew: Callable[[int], None] = ...,
        compiling: Callable[[bool], None] = ...,
    ) -> "Future[ShardResult]": ...
    def probe(
        self,
        planned: PlannedShard,
        keys: frozenset[str],
        excluded: frozenset[str] = ...,
        compiling: Callable[[bool], None] = ...,
    ) -> None: ...
    def close(self) -> None: ...


class Desk(Protocol):
    """How one worker reaches its coordinator. No call may block except the one that ``ask`` returns.

    ``report`` raises nothing: it is called by threads that nobody listens to. What has gone wrong with the coordinator
    is raised by ``ask``, by what it returns, or by ``leave``.
    """

    def ask(self, done: Sequence[Report], holding: Sequence[str], running: str | None) -> Callable[[], Answer]: ...
    def report(self, done: Sequence[Report], word: Drawn | Compiling | None = None) -> None: ...
    def leave(self) -> None: ...


class Told:
    """Counts the pictures of one task as they are drawn. ``images`` are those that the coordinator has been told of."""

    def __init__(self, tell: Callable[[Drawn], bool], task: Task):
        self._tell, self._task = tell, task
        self._drawn = 0
        self.images = 0

    def __call__(self, images: int) -> None:
        """So many more are drawn."""
        self._drawn += images
        share = min(1.0, self._drawn / len(self._task.planned.samples))  # with further seeds there are more pictures
        if self._tell(Drawn(attempt=self._task.attempt, images=self._drawn - self.images, share=share)):
            self.images = self._drawn


class Loop:
    """Runs leases until told to stop. ``fragile``: after an error leave, for the process may be of no further use.

    That is so on CUDA, where one device-side assert fails every later call.
    """

    def __init__(
        self, worker: Processor, desk: Desk, *, fragile: bool = False, said: Callable[[], Sequence[str]] = lambda: ()
    ):
        """*said* gives what the worker has said, and was not passed on elsewhere, since it was last asked."""
        self._worker, self._desk, self._fragile, self._said = worker, desk, fragile, said
        self._lock = threading.Condition()
        self._leases: dict[str, Lease] = {}  # not yet reported in full
        self._open: dict[str, str] = {}  # attempt -> lease id
        self._reports: list[Report] = []
        self._under_way = 0  # commits
        self._last_call = 0.0
        self._report_every = 0.0
        self._broken = False
        self._full = False  # what is drawn could not be put away

    def run(self) -> str:
        """Work until there is no more to do; return why. The worker is closed then."""
        try:
            reason = self._run()
            self._settle()
        finally:
            self._worker.close()
        with self._lock:
            self._desk.report(self._take())
        self._desk.leave()
        return reason

    def held(self) -> list[Held]:
        """Describe the leases in hand, from any thread."""
        with self._lock:
            return [lease.held() for lease in self._leases.values()]

    def _run(self) -> str:
        answer = self._ask(None)()
        while not isinstance(answer, Stop):
            if isinstance(answer, Wait):
                self._pause(answer.seconds)
                answer = self._ask(None)()
                continue
            lease = self._accept(answer)
            if lease.suspect:
                self._settle()  # it may take this process along: let it take nothing else, and be known as the cause
            upcoming = self._ask(lease.id)
            for task in lease.tasks:
                if self._full:
                    return "nothing more can be stored from there"
                self._do(task)
                if self._broken:
                    return "left after an error, to begin afresh"
            if lease.suspect:
                self._settle()
            answer = upcoming()
            if isinstance(answer, Wait):
                answer = self._ask(None)()
        return answer.reason

    def _accept(self, lease: Lease) -> Lease:
        with self._lock:
            self._leases[lease.id] = lease
            self._open.update({task.attempt: lease.id for task in lease.tasks})
            self._report_every = lease.report_every
        return lease

    def _do(self, task: Task) -> None:
        """Run one task; whatever it raises is the task's failure, and becomes its report."""
        shard = task.planned.index
        told, compiling = Told(self._tell, task), partial(self._compiling, task.attempt)
        try:
            if task.probe is not None:
                self._worker.probe(task.planned, task.probe, task.excluded, compiling)
                self._end(Report(shard=shard, attempt=task.attempt))
                return
            future = self._worker.process(task.planned, task.attempt, task.excluded, told, compiling)
        except EndpointError as error:  # no fault of the shard, nor of this process
            self._end(Report(shard=shard, attempt=task.attempt, error=str(error), storage=True))
            return
        except Exception:
            self._broken = self._fragile
            self._end(Report(shard=shard, attempt=task.attempt, error=traceback.format_exc()))
            return
        with self._lock:
            self._under_way += 1
        future.add_done_callback(lambda done: self._committed(task, told.images, done))

    def _committed(self, task: Task, told: int, future: "Future[ShardResult]") -> None:
        """A commit has ended, well or not (on the worker's thread)."""
        report = _report(task, told, future)
        try:
            self._full = self._full or report.full
            self._end(report)
        finally:
            with self._lock:
                self._under_way -= 1
                self._lock.notify_all()

    def _tell(self, drawn: Drawn) -> bool:
        """Pass on how far a task has come, and what else there is to report, unless something was said just now."""
        with self._lock:
            now = time.monotonic()
            if now - self._last_call < max(self._report_every, SECONDS_BETWEEN_WORDS):
                return False
            self._last_call = now
            self._desk.report(self._take(), drawn)
            return True

    def _compiling(self, attempt: str, begun: bool) -> None:
        """Say at once that a task waits for code, or no more: the time is not counted."""
        with self._lock:
            self._last_call = time.monotonic()
            self._desk.report(self._take(), Compiling(attempt=attempt, begun=begun, said=tuple(self._said())))

    def _end(self, report: Report) -> None:
        with self._lock:
            self._reports.append(report)
            if time.monotonic() - self._last_call >= self._report_every:
                self._last_call = time.monotonic()
                self._desk.report(self._take())

    def _ask(self, running: str | None) -> Callable[[], Answer]:
        with self._lock:  # reports and the leases said to be held must leave in one order
            self._last_call = time.monotonic()
            reports = self._take()
            return self._desk.ask(reports, list(self._leases), running)

    def _take(self) -> list[Report]:
        """The reports not yet sent; their leases are no longer in hand once all of their tasks are reported."""
        reports, self._reports = self._reports, []
        for report in reports:
            del self._open[report.attempt]
        still = set(self._open.values())
        self._leases = {lease_id: lease for lease_id, lease in self._leases.items() if lease_id in still}
        return reports

    def _settle(self) -> None:
        """Wait until no commit is under way and all are reported or about to be."""
        with self._lock:
            self._lock.wait_for(lambda: self._under_way == 0)

    def _pause(self, seconds: float) -> None:
        """Wait before asking again, but not beyond the end of a commit: its report is worth a call."""
        with self._lock:
            before = self._under_way
            self._lock.wait_for(lambda: self._under_way < before, timeout=seconds)


def _report(task: Task, told: int, future: "Future[ShardResult]") -> Report:
    """What a commit that has ended came to; *told* pictures of it are known."""
    shard, error = task.planned.index, future.exception()
    if isinstance(error, StoreError):
        full = isinstance(error, Full)
        return Report(shard=shard, attempt=task.attempt, error=str(error), storage=True, full=full)
    if isinstance(error, OSError) and error.errno in FULL:  # no fault of its shard
        line = f"{socket.gethostname()}: {error.strerror} in {tempfile.gettempdir()} (TMPDIR), where shards are built"
        return Report(shard=shard, attempt=task.attempt, error=line, full=True)
    if error is not None:
        return Report(shard=shard, attempt=task.attempt, error="".join(traceback.format_exception(error)))
    result = future.result()
    return Report(
        shard=shard,
        attempt=task.attempt,
        counts=result.counts,
        images=result.images - told,
        seconds=result.seconds,
        device_seconds=result.device_seconds,
    )
