"""What is to be done next, and what becomes of a shard that fails: retried, bisected, shorn of a sample, given up.

Knows nothing of workers or leases. Invariant: an unfinished shard that nobody works on stands in exactly one of the
three queues; whoever takes it out with ``pop`` brings it back through one of the methods below.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator
from itertools import chain, islice

from pipeline.cluster.bisection import Bisection
from pipeline.cluster.history import MOST_BLAMED, History
from pipeline.cluster.protocol import CHARGED, Failure, FailureKind, Planner
from pipeline.cluster.shardset import ShardSet

SEARCHES = 3  # in vain; a stray kill under a probe leads its search astray


class Triage:
    """The queues of shards. ``closed`` are the shards that need no work: done, or in some worker's hands."""

    def __init__(self, plan: Planner, history: History, error_budget: int, node_loss_budget: int):
        self._plan, self._history = plan, history
        self._error_budget, self._node_loss_budget = error_budget, node_loss_budget
        # Queues from whose middle a shard is taken as soon as from their front.
        self._again: OrderedDict[int, None] = OrderedDict()  # lost without a fault of their own: before all others
        self._fresh = ShardSet(plan.shards)
        self._suspects: OrderedDict[int, None] = OrderedDict()  # may have failed, or are under bisection: leased singly
        self._watched: set[int] = set()  # of these, those that were there when a worker died, and may not be to blame
        self._bisections: dict[int, Bisection] = {}
        self._in_vain: Counter[int] = Counter()  # searches that blamed nobody
        self.log: list[str] = []

    def fill(self, closed: Container[int]) -> None:
        """Queue every shard of the plan that is neither *closed* nor given up."""
        for shard in range(self._plan.shards):
            if shard in closed or shard in self._history.given_up:
                continue
            if self._history.errors(shard):
                self._retry(shard)
            else:
                self._fresh.add(shard)

    @property
    def pending(self) -> int:
        """Shards that may be leased several at once."""
        return len(self._again) + len(self._fresh)

    @property
    def untried(self) -> bool:
        """Are there shards that nobody has had yet?"""
        return len(self._fresh) > 0

    def waiting(self) -> Iterator[int]:
        """The shards in all queues."""
        return chain(self._again, self._fresh, self._suspects)

    def due(self, most: int) -> list[int]:
        """The first *most* shards that ``pop`` would take, left where they are."""
        return list(islice(chain(self._again, self._fresh), most))

    def pop(self, most: int) -> list[int]:
        """Take up to *most* shards that nothing speaks against."""
        again = [self._again.popitem(last=False)[0] for _ in range(min(most, len(self._again)))]
        return again + [self._fresh.pop_first() for _ in range(min(most - len(again), len(self._fresh)))]

    def pop_suspect(self, acceptable: Callable[[int], bool]) -> int | None:
        """Take the first suspect that the predicate accepts."""
        for shard in self._suspects:
            if acceptable(shard):
                del self._suspects[shard]
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
        (self._suspects if suspect else self._again)[shard] = None

    def withdraw(self, shard: int) -> None:
        """It is committed after all: nobody need do it."""
        self._bisections.pop(shard, None)
        self._again.pop(shard, None)
        self._suspects.pop(shard, None)
        self._fresh.discard(shard)

    def failed(self, failure: Failure) -> None:
        """An attempt at a shard failed, by a fault that may be the shard's own or with its node; it is counted."""
        shard = failure.shard
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
            self._suspects[shard] = None
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
        self._suspects[shard] = None

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
            self._suspects[shard] = None

    def give_up(self, shard: int, message: str) -> None:
        """Nobody will try it again, in this run or after a restart."""
        self._history.add(Failure(shard=shard, kind=FailureKind.given_up, message=message))
        self._bisections.pop(shard, None)
        self.log.append(f"shard {shard:06d}: given up: {last_line(message)}")


def last_line(message: str) -> str:
    """The line of a traceback that says what went wrong."""
    lines = message.strip().splitlines()
    return lines[-1] if lines else "no message"
