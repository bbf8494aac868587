"""Storage, asked and written to aside: nobody who wants an answer of the coordinator waits for storage to give one.

It takes seconds to answer, and minutes where it is busy, and when a thousand workers are lost at once there are twenty
thousand shards to ask about. So whatever has come up is asked all at once, while the next comes up.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future

from pipeline.cluster.protocol import Counts, Failure
from pipeline.parallel import in_parallel

Found = Mapping[int, Counts]  # of those shards that were asked about: the committed ones


class Aside:
    """Questions and failures, carried to storage by *threads*, a round of them at a time. For one caller's thread,
    which continues with what came of them in ``take``; what storage raised is raised there."""

    def __init__(
        self, committed: Callable[[Collection[int]], Found], record: Callable[[Failure], None], threads: Executor
    ):
        self._committed, self._record, self._threads = committed, record, threads
        self._questions: list[tuple[Sequence[int], Callable[[Found], None]]] = []
        self._failures: list[tuple[Failure, Callable[[], None]]] = []
        self._round: Future[Callable[[], None]] | None = None
        self._taking = False

    def ask(self, shards: Sequence[int], then: Callable[[Found], None]) -> None:
        """Ask which of *shards* are committed, and continue with the answer."""
        self._questions.append((shards, then))
        self.take()

    def write(self, failure: Failure, then: Callable[[], None]) -> None:
        """Write a failure down, and continue once it is."""
        self._failures.append((failure, then))
        self.take()

    def take(self) -> None:
        """Continue with what has been answered by now, and ask what has come up meanwhile."""
        if self._taking:  # by what continues here: it is seen to below
            return
        self._taking = True
        try:
            while self._round is None or self._round.done():
                if self._round is not None:
                    answered, self._round = self._round.result(), None
                    answered()
                if not (self._questions or self._failures):
                    return
                self._round = self._threads.submit(self._carry, self._questions, self._failures)
                self._questions, self._failures = [], []
        finally:
            self._taking = False

    def close(self) -> None:
        """Ask nothing more; nobody takes answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _carry(
        self,
        questions: Sequence[tuple[Sequence[int], Callable[[Found], None]]],
        failures: Sequence[tuple[Failure, Callable[[], None]]],
    ) -> Callable[[], None]:
        """One round, on the other thread; return what is to be done on the caller's."""
        for _ in in_parallel(self._record, [failure for failure, _ in failures]):
            pass
        shards = {shard for shards, _ in questions for shard in shards}
        found = self._committed(shards) if shards else {}

        def answered() -> None:
            for _, then in failures:
                then()
            for _, continued in questions:
                continued(found)

        return answered
