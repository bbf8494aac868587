"""Storage, asked and written to aside: nobody who wants an answer of the coordinator waits for storage to give one.

It takes seconds to answer, and minutes where it is busy, and when a thousand workers are lost at once there are twenty
thousand shards to ask about. So whatever has come up is asked all at once, while the next comes up.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial

from pipeline.cluster.protocol import Counts, Failure
from pipeline.parallel import in_parallel

CONTINUED = 32  # questions a call: twenty thousand, answered at once, take a second

Found = Mapping[int, Counts]  # of those shards that were asked about: the committed ones
Questions = list[tuple[Sequence[int], Callable[[Found], None]]]
Failures = list[tuple[Failure, Callable[[], None]]]


class Aside:
    """Questions and failures, carried to storage by *threads*, a round of them at a time. For one caller's thread,
    which continues with what came of them in ``take``; what storage raised is raised there."""

    def __init__(
        self, committed: Callable[[Collection[int]], Found], record: Callable[[Failure], None], threads: Executor
    ):
        self._committed, self._record, self._threads = committed, record, threads
        self._questions: Questions = []
        self._failures: Failures = []
        self._round: Future[tuple[Found, Questions, Failures]] | None = None
        self._answered: deque[Callable[[], None]] = deque()  # what continues
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
        """Continue with some of what has been answered by now, and ask what has come up meanwhile."""
        if self._taking:  # by what continues here: it is seen to below
            return
        self._taking = True
        try:
            for _ in range(CONTINUED):
                while not self._answered and self._carry():
                    pass
                if not self._answered:
                    return
                self._answered.popleft()()
        finally:
            self._taking = False

    def close(self) -> None:
        """Ask nothing more; nobody takes answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _carry(self) -> bool:
        """End the round under way, where it has ended, and begin the next, where there is something to carry; return
        whether that has ended, too."""
        if self._round is not None and self._round.done():
            found, questions, failures = self._round.result()
            self._round = None
            self._answered += [then for _, then in failures]
            self._answered += [partial(then, found) for _, then in questions]
        if self._round is None and (self._questions or self._failures):
            self._round = self._threads.submit(self._speak, self._questions, self._failures)
            self._questions, self._failures = [], []
        return self._round is not None and self._round.done()

    def _speak(self, questions: Questions, failures: Failures) -> tuple[Found, Questions, Failures]:
        """One round, on the other thread."""
        for _ in in_parallel(self._record, [failure for failure, _ in failures]):
            pass
        shards = {shard for shards, _ in questions for shard in shards}
        return self._committed(shards) if shards else {}, questions, failures
