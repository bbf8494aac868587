"""``backend: local``: the same coordinator and the same loop as on a cluster, in this process and on one device.

For tests, notebooks and machines without Ray. A crash is the crash of the whole run, and the same command goes on.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.loop import Answer, Loop, Processor
from pipeline.cluster.progress import Progress
from pipeline.cluster.protocol import Compiling, Drawn, Report, Snapshot

NAME = "local#1"
PAUSE = 0.05  # seconds between two looks whether storage has answered


class LocalDesk:
    """Calls the coordinator directly; commits end on other threads, and it is not thread-safe, hence the lock."""

    def __init__(self, coordinator: Coordinator, progress: Progress):
        self._coordinator, self._progress = coordinator, progress
        self._lock = threading.Lock()

    def ask(self, done: Sequence[Report], holding: Sequence[str], running: str | None) -> Callable[[], Answer]:
        with self._lock:
            answer = self._coordinator.next(NAME, done, holding, running)
            self._show()
        return lambda: answer

    def report(self, done: Sequence[Report], word: Drawn | Compiling | None = None) -> None:
        with self._lock, contextlib.suppress(Exception):  # the coordinator raises it again, at the next ``ask``
            self._coordinator.report(NAME, done, word)
            self._show()

    def leave(self) -> None:
        with self._lock:
            self._coordinator.leave(NAME)

    def _show(self) -> None:
        self._progress.update(self._coordinator.snapshot())


def run_local(coordinator: Coordinator, worker: Processor, progress: Progress) -> Snapshot:
    """Work until every shard is committed or given up, or the run is stopped; return how it stands then.

    ``KeyboardInterrupt`` passes through, after the commits under way have ended.
    """
    try:
        Loop(worker, LocalDesk(coordinator, progress)).run()
        while (snapshot := coordinator.snapshot()).in_doubt:
            time.sleep(PAUSE)
    finally:
        coordinator.close()
    return snapshot
