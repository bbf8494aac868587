"""How long a shard takes, and what follows from it: how much to lease at once, when to lose patience.

Knows nothing of who works. All times are seconds of the coordinator's clock.
"""

import math
from collections import deque
from statistics import median

# One call is reckoned at 0.6 ms of the coordinator's work (jobs/bench_coordinator.py measures it). For it to stay below
# 1 % busy, each worker may call once in 100 * 0.6 ms = 0.06 s times the number of workers: at once on a laptop, every
# 10 minutes for 10,000 GPUs.
SECONDS_BETWEEN_CALLS_PER_WORKER = 0.06
FIRST_DEADLINE = 3600.0  # before anything is measured: the first shard may compile kernels and download nothing less
PATIENCE = 10.0  # times the median: no honest shard takes so long, not even on the slowest GPU of a mixed cluster
SHORTEST_DEADLINE = 1800.0  # busy storage (up to 5 minutes a request, corpus.remote; ten a commit) may hold up any
MEASURED = 64  # shards that the median looks back on


class Pace:
    """Measured seconds per shard. ``timeout`` overrides every deadline drawn from them."""

    def __init__(self, timeout: float | None = None):
        self._timeout = timeout
        self._seconds: deque[float] = deque(maxlen=MEASURED)
        self._median = 0.0

    def measured(self, seconds: float) -> None:
        """A shard was committed after so many seconds."""
        self._seconds.append(seconds)
        self._median = median(self._seconds)

    def deadline(self, shards: int) -> float:
        """Seconds after which a worker that has so many shards of a lease left, and ended none, counts as hung."""
        if self._timeout is not None:
            return shards * self._timeout
        if not self._seconds:
            return shards * FIRST_DEADLINE
        return max(SHORTEST_DEADLINE, shards * PATIENCE * self._median)

    def report_every(self, workers: int) -> float:
        """Seconds that a worker lets pass between two calls."""
        return SECONDS_BETWEEN_CALLS_PER_WORKER * workers

    def lease_size(self, workers: int, pending: int) -> int:
        """Shards to lease at once: enough to keep the calls rare, but never more than half of a fair share of the rest.

        One, until shards are measured: a wrong config should cost one shard per worker.
        """
        if not self._seconds:
            return 1
        wanted = math.ceil(self.report_every(workers) / max(self._median, 1e-3))
        return max(1, min(wanted, pending // (2 * max(workers, 1))))
