"""What is to be done next, and what becomes of a shard that fails: retried, bisected, shorn of a sample, given up.

Knows nothing of workers or leases. Invariant: an unfinished shard that nobody works on stands in exactly one of the
three queues; whoever takes it out with ``pop`` brings it back through one of the methods below.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from itertools import chain, islice

from pipeline.cluster.bisection import Bisection
from pipeline.cluster.history import MOST_BLAMED, History
from pipeline.cluster.protocol import CHARGED, Failure, FailureKind, Planner

SEARCHES = 3  # in vain; a stray kill under a probe leads its search astray


class Triage:
    """The queues of shards. ``closed`` are the shards that need no work: done, or in some worker's hands."""

    def __init__(self, plan: Planner, history: History, error_budget: int, node_loss_budget: int):
        self._plan, self._history = plan, history
        self._error_budget, self._node_loss_budget = error_budget, node_loss_budget
        self._again: deque[int] = deque()  # lost without a fault of their own: before all others
        self._fresh: deque[int] = deque()
        self._suspects: deque[int] = deque()  # may have failed, or are under bisection: leased singly
        self._watched: set[int] = set()  # of these, those that were there when a worker died, and may not be to blame
        self._bisections: dict[int, Bisection] = {}
        self._in_vain: Counter[int] = Counter()  # searches that blamed nobody
        self.log: list[str] = []

    def fill(self, closed: Collection[int]) -> None:
        """Queue every shard of the plan that is neither *closed* nor given up."""
        for shard in range(self._plan.shards):
            if shard in closed or shard in self._history.given_up:
                continue
            if self._history.errors(shard):
                self._retry(shard)
            else:
                self._fresh.append(shard)

    @property
    def pending(self) -> int:
        """Shards that may be leased several at once."""
        return len(self._again) + len(self._fresh)

    @property
    def untried(self) -> bool:
        """Are there shards that nobody has had yet?"""
        return bool(self._fresh)

    def due(self, most: int) -> list[int]:
        """The first *most* shards that ``pop`` would take, left where they are."""
        return list(islice(chain(self._again, self._fresh), most))

    def pop(self, most: int) -> list[int]:
        """Take up to *most* shards that nothing speaks against."""
        shards: list[int] = []
        while len(shards) < most and (queue := self._again or self._fresh):
            shards.append(queue.popleft())
        return shards

    def pop_suspect(self, acceptable: Callable[[int], bool]) -> int | None:
        """Take the first suspect that the predicate accepts."""
        for shard in self._suspects:
            if acceptable(shard):
                self._suspects.remove(shard)
                return shard
        return None

    def probe(self, shard: int) -> frozenset[str] | None:
        """The keys to probe in *shard*, or None where it is to be generated as a whole."""
        bisection = self._bisections.get(shard)
        return frozenset(bisection.group) if bisection and bisection.group else None

    def put_back(self, shard: int, watch: bool = False) -> None:
        """It was leased and not finished, through no known fault of its own; *watch* it, if there may be one."""
        if watch:
            self._watched.add(shard)
        suspect = self._history.errors(shard) or shard in self._bisections or shard in self._watched
        (self._suspects if suspect else self._again).append(shard)

    def withdraw(self, shard: int) -> None:
        """It is committed after all: nobody need do it."""
        self._bisections.pop(shard, None)
        for queue in (self._again, self._fresh, self._suspects):
            if shard in queue:
                queue.remove(shard)

    def failed(self, failure: Failure) -> None:
        """An attempt at a shard failed, by a fault that may be the shard's own or with its node."""
        shard = failure.shard
        self._history.add(failure)
        if failure.kind in CHARGED:
            number = f"{self._history.errors(shard)} of {self._error_budget}"
            self.log.append(
                f"shard {shard:06d}: {failure.kind} ({number}) at {failure.worker}: {last_line(failure.message)}"
            )
            self._retry(shard)
        elif self._history.losses(shard) >= self._node_loss_budget:
            self.give_up(shard, f"{self._history.losses(shard)} nodes were lost under it")
        else:
            self.put_back(shard)

    def probed(self, shard: int, survived: bool) -> None:
        """The probe of a shard's samples has ended."""
        bisection = self._bisections[shard]
        (bisection.passed if survived else bisection.failed)()
        if bisection.group is not None:
            self._suspects.append(shard)
            return
        del self._bisections[shard]
        self._blame(shard, bisection.blamed)

    def _retry(self, shard: int) -> None:
        if self._history.errors(shard) >= self._error_budget:
            if self._in_vain[shard] >= SEARCHES:
                self.give_up(shard, self._history.message(shard))
                return
            blamed = self._history.blamed(shard)
            samples = self._plan.shard(shard).samples
            suspects = {sample.key: sample.prompt_index for sample in samples if sample.key not in blamed}
            self._bisections[shard] = Bisection(suspects)
            self.log.append(f"shard {shard:06d}: looking for the sample that makes it fail")
        self._suspects.append(shard)

    def _blame(self, shard: int, keys: Iterable[str]) -> None:
        message = self._history.message(shard)
        for key in keys:
            self._history.add(Failure(shard=shard, kind=FailureKind.blamed, message=message, sample_key=key))
            self.log.append(f"shard {shard:06d}: sample {key} will be left out: {last_line(message)}")
        if self._history.errors(shard) >= self._error_budget:
            self._in_vain[shard] += 1
            self.log.append(f"shard {shard:06d}: no single sample was found to make it fail; trying it once more")
        if len(self._history.blamed(shard)) > MOST_BLAMED:
            self.give_up(shard, f"more than {MOST_BLAMED} of its samples fail: {message}")
        else:
            self._suspects.append(shard)

    def give_up(self, shard: int, message: str) -> None:
        """Nobody will try it again, in this run or after a restart."""
        self._history.add(Failure(shard=shard, kind=FailureKind.given_up, message=message))
        self._bisections.pop(shard, None)
        self.log.append(f"shard {shard:06d}: given up: {last_line(message)}")


def last_line(message: str) -> str:
    """The line of a traceback that says what went wrong."""
    lines = message.strip().splitlines()
    return lines[-1] if lines else "no message"
