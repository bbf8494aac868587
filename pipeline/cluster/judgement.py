"""Two judgements over many tasks: is the config wrong, and is a place (a GPU, a machine) bad?

Both protect the budgets: without them one fault of the whole would be charged to every shard in turn.
"""

from collections.abc import Callable, Collection

FIRST_TASKS = 16  # shards; if more than half of the first ones fail, it is the config and not the luck
FEWEST_FAILURES = 4  # attempts, and different shards where there are so many; from fewer nothing is concluded
PARK_AFTER = 3  # different shards failing in a row at one place while others succeed: it is the place


def place(worker: str) -> str:
    """Where a worker runs: its id up to ``#``. A replacement on the same GPU has the same place."""
    return worker.partition("#")[0]


class FirstTasks:
    """Watches the first shards of a run, apart from ``known``: those that failed in an earlier run."""

    def __init__(self, shards: int, known: Collection[int] = ()):
        self._fewest = min(FEWEST_FAILURES, shards)
        self._known = frozenset(known)
        self._seen: set[int] = set()
        self.failed: set[int] = set()
        self._attempts = 0
        self._error = ""
        self._sane = False

    @property
    def over(self) -> bool:
        """Have enough shards been tried?"""
        return len(self._seen) >= FIRST_TASKS

    def survived(self) -> None:
        """A probe survived: the config can be right, whatever single shards do."""
        self._sane = True

    def concluded(self, shard: int, error: str | None) -> str | None:
        """Take in one attempt's end; return why the run should stop, or None."""
        if shard in self._known or (self.over and shard not in self._seen):
            return None
        self._seen.add(shard)
        self._attempts += 1
        if error is None:
            self.failed.discard(shard)
            return None
        self.failed.add(shard)
        self._error = self._error or error
        failed = len(self.failed)
        if self._sane or self._attempts < FEWEST_FAILURES or failed < self._fewest or 2 * failed <= len(self._seen):
            return None
        return f"{failed} of the first {len(self._seen)} shards failed; the first error was:\n{self._error}"


class Places:
    """Where shards failed: to retry them elsewhere, and to use no more a place where everything fails."""

    def __init__(self) -> None:
        self._failed_at: dict[int, set[str]] = {}
        self._row: dict[str, set[int]] = {}  # place -> different shards failed since its last success
        self._condemned: set[str] = set()  # whatever succeeds there
        self._contrast: set[str] = set()  # of these places, those during whose row others succeeded

    def succeeded(self, shard: int, at: str) -> None:
        """An attempt at *shard* was committed at the place *at*."""
        self._failed_at.pop(shard, None)
        self._row.pop(at, None)
        self._contrast.discard(at)
        self._contrast |= self._row.keys()

    def failed(self, shard: int, at: str) -> None:
        """An attempt at *shard* failed at the place *at*."""
        self._failed_at.setdefault(shard, set()).add(at)
        self._row.setdefault(at, set()).add(shard)

    def condemn(self, at: str) -> None:
        """Nothing can succeed at the place *at*."""
        self._condemned.add(at)

    def bad(self, at: str, live: Callable[[], Collection[str]]) -> bool:
        """Should the place *at* be given nothing more? Never where no better place is among the *live* ones."""
        return self._suspect(at) and any(not self._suspect(other) for other in live() if other != at)

    def may_retry(self, shard: int, at: str, live: Callable[[], Collection[str]]) -> bool:
        """Has *shard* not failed at the place *at*, or at every *live* one that is any good?"""
        failed_at = self._failed_at.get(shard, set())
        return at not in failed_at or all(other in failed_at or self._suspect(other) for other in live())

    def suspects(self) -> set[str]:
        """Places that are given nothing more as soon as there is a better one."""
        return self._condemned | {at for at in self._row if self._suspect(at)}

    def _suspect(self, at: str) -> bool:
        return at in self._condemned or (len(self._row.get(at, ())) >= PARK_AFTER and at in self._contrast)
