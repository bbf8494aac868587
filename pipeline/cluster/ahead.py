"""Planning ahead: the shards that are due next are planned on a thread, so that no worker waits for their rows.

Rows of a store take seconds to come, and while the coordinator waits for them nobody else is served. What is planned,
and in which order shards are asked for, is the same without this.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.cluster.protocol import Planner
from pipeline.prompts import PlannedShard


class Ahead:
    """A planner over *plan*, which its thread alone uses. For one caller's thread."""

    def __init__(self, plan: Planner):
        self._plan = plan
        self._thread = ThreadPoolExecutor(1, "plan")
        self._begun: dict[int, Future[PlannedShard]] = {}

    @property
    def shards(self) -> int:
        return self._plan.shards

    def shard(self, index: int) -> PlannedShard:
        """Return shard *index*, or raise what the plan does: an error is always of now, for a shard whose planning
        ahead has failed is planned once more."""
        planned = self._begun.pop(index, None)
        if planned is None or planned.exception() is not None:
            self._drop_waiting()  # this one is due before all of them
            planned = self._thread.submit(self._plan.shard, index)
        return planned.result()

    def expect(self, shards: Iterable[int]) -> None:
        """Plan these, in this order, before they are asked for; they take the place of those expected before."""
        wanted = list(shards)
        if list(self._begun) != wanted[: len(self._begun)]:
            self._drop_waiting()
        self._begun = {
            shard: self._begun.get(shard) or self._thread.submit(self._plan.shard, shard) for shard in wanted
        }

    def close(self) -> None:
        """Begin with no other shard. One that is being planned is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _drop_waiting(self) -> None:
        self._begun = {shard: planned for shard, planned in self._begun.items() if not planned.cancel()}
