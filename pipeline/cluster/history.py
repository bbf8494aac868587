"""Each shard's bad luck, counted against its two budgets and written down so that the counts survive a restart.

Knows nothing of workers or leases. What it is told goes through the injected ``record`` first, or has been recorded by
who tells it (``count``), and then into the counts: were it the other way round, a coordinator that dies between the two
would forget a failure.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from pipeline.cluster.protocol import CHARGED, Failure, FailureKind

MOST_BLAMED = 16  # samples of one shard; with more of them guilty it is the shard that is wrong, not single samples


class History:
    """The failures of all shards: from earlier runs (``past``, in the order of their recording) and from this one."""

    def __init__(self, past: Iterable[Failure], record: Callable[[Failure], None]):
        self._record = record
        self._errors: Counter[int] = Counter()  # since the last blame or pardon
        self._losses: Counter[int] = Counter()
        self._blamed: dict[int, frozenset[str]] = defaultdict(frozenset)
        self._messages: dict[int, str] = {}
        self.given_up: dict[int, str] = {}
        for failure in past:
            self.count(failure)

    def add(self, failure: Failure) -> None:
        """Record one failure; errors of storage propagate."""
        self._record(failure)
        self.count(failure)

    def count(self, failure: Failure) -> None:
        """Count one failure that is recorded."""
        shard = failure.shard
        if failure.kind in CHARGED:
            self._errors[shard] += 1
            self._messages[shard] = failure.message
        elif failure.kind is FailureKind.node_loss:
            self._losses[shard] += 1
            self._messages[shard] = failure.message
        elif failure.kind is FailureKind.blamed:
            assert failure.sample_key is not None
            self._blamed[shard] |= {failure.sample_key}
            self._errors[shard] = 0  # without that sample it deserves its whole budget again
        elif failure.kind is FailureKind.pardoned:
            self._errors[shard] = 0
        else:
            self.given_up[shard] = failure.message

    def failed(self) -> list[int]:
        """The shards with errors."""
        return [shard for shard, errors in self._errors.items() if errors]

    def errors(self, shard: int) -> int:
        """Failed attempts at *shard* since a sample of it was last blamed, or it was pardoned."""
        return self._errors[shard]

    def losses(self, shard: int) -> int:
        """Nodes lost under *shard*."""
        return self._losses[shard]

    def blamed(self, shard: int) -> frozenset[str]:
        """Keys of *shard* that are excluded for good."""
        return self._blamed.get(shard, frozenset())

    def all_blamed(self) -> list[str]:
        """Keys of all samples that are excluded for good, sorted."""
        return sorted(key for keys in self._blamed.values() for key in keys)

    def message(self, shard: int) -> str:
        """What the last failed attempt at *shard* said."""
        return self._messages.get(shard, "")
