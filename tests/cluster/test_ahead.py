"""Planning ahead: what is due is ready, in the order of leases, and errors are of their shard and moment."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cluster.ahead import Ahead
from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.protocol import FailureKind, Lease, Report
from pipeline.cluster.records import open_coordinator
from pipeline.config import load_config
from pipeline.corpus import open_store
from pipeline.errors import ConfigError
from pipeline.prompts import Plan, PlannedShard, open_source
from pipeline.prompts.order import SPAN

PATIENCE = 20.0  # seconds, for what takes milliseconds


class Watched:
    """A plan of empty shards that notes what is planned and on which thread, and where it is told, waits or fails."""

    def __init__(self, shards: int):
        self.shards = shards
        self.planned: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.errors: dict[int, list[Exception]] = {}  # of a shard, raised one after the other
        self.open = threading.Event()
        self.open.set()
        self._changed = threading.Condition()

    def shard(self, index: int) -> PlannedShard:
        with self._changed:
            self.planned.append(index)
            self.threads.add(threading.current_thread())
            self._changed.notify_all()
        assert self.open.wait(PATIENCE)
        if self.errors.get(index):
            raise self.errors[index].pop(0)
        return PlannedShard(index, ())

    def wait_for(self, *shards: int) -> None:
        """Wait until exactly these have been begun, in this order."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.planned) >= len(shards), PATIENCE)
        assert self.planned == list(shards)


def coordinator_over(plan: Watched, ahead: int, done: tuple[int, ...] = ()) -> tuple[Coordinator, list]:
    records: list = []
    coordinator = Coordinator(
        plan,
        done={shard: {"ok": 0} for shard in done},
        past=[],
        record=records.append,
        committed=lambda shards: {},
        token="t",
        error_budget=3,
        node_loss_budget=20,
        ahead=ahead,
    )
    return coordinator, records


def leased(coordinator: Coordinator, worker: str) -> list[int]:
    answer = coordinator.next(worker)
    assert isinstance(answer, Lease), answer
    return [task.planned.index for task in answer.tasks]


def test_workers_are_served_while_the_next_shards_are_read() -> None:
    plan = Watched(9)
    coordinator, _ = coordinator_over(plan, ahead=3)
    plan.wait_for(0, 1, 2)
    plan.open.clear()  # from here on, whoever plans waits
    assert [leased(coordinator, f"a{i}#1") for i in range(3)] == [[0], [1], [2]]
    plan.wait_for(0, 1, 2, 3)
    plan.open.set()
    assert [leased(coordinator, f"b{i}#1") for i in range(6)] == [[i] for i in range(3, 9)]
    assert plan.planned == list(range(9))  # each once, in the order of the leases
    assert len(plan.threads) == 1
    assert threading.current_thread() not in plan.threads


def test_only_what_is_missing_is_planned_ahead() -> None:
    plan = Watched(7)
    coordinator, _ = coordinator_over(plan, ahead=2, done=(0, 1, 3, 4))
    plan.wait_for(2, 5)
    assert [leased(coordinator, f"a{i}#1") for i in range(3)] == [[2], [5], [6]]
    assert plan.planned == [2, 5, 6]


def test_what_was_lost_goes_before_what_waits_to_be_planned() -> None:
    plan = Watched(9)
    coordinator, _ = coordinator_over(plan, ahead=4)
    plan.wait_for(0, 1, 2, 3)
    assert leased(coordinator, "a#1") == [0]
    plan.wait_for(0, 1, 2, 3, 4)
    plan.open.clear()
    assert leased(coordinator, "b#1") == [1]
    plan.wait_for(0, 1, 2, 3, 4, 5)
    coordinator.lost("a#1", FailureKind.node_loss, "gone")
    threading.Timer(0.05, plan.open.set).start()
    assert leased(coordinator, "c#1") == [0]
    assert plan.planned[6] == 0
    assert leased(coordinator, "d#1") == [2]


def test_storage_that_fails_ends_the_run_only_if_it_does_when_the_shard_is_due() -> None:
    plan = Watched(5)
    plan.errors[1] = [ConfigError("out of reach")]
    plan.errors[2] = [ConfigError("out of reach"), ConfigError("still out of reach")]
    coordinator, records = coordinator_over(plan, ahead=3)
    plan.wait_for(0, 1, 2)
    assert [leased(coordinator, f"a{i}#1") for i in range(2)] == [[0], [1]]
    with pytest.raises(ConfigError, match="still out of reach"):
        coordinator.next("b#1")
    with pytest.raises(ConfigError, match="still out of reach"):
        coordinator.report("a0#1", [Report(shard=0, attempt="t-1")])
    assert records == []


def test_after_the_end_no_other_shard_is_begun() -> None:
    plan = Watched(9)
    plan.open.clear()
    planner = Ahead(plan)
    planner.expect(range(9))
    plan.wait_for(0)
    planner.close()
    plan.open.set()
    (thread,) = plan.threads
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert plan.planned == [0]


@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_leases_are_the_shards_of_the_plan(shuffle: str, tmp_path: Path) -> None:
    rows = SPAN + 3000
    pq.write_table(pa.table({"prompt": [f"row {i}" for i in range(rows)]}), tmp_path / "p.parquet", row_group_size=700)
    (tmp_path / "c.yaml").write_text(
        f"model: {{path: diorama, dtype: float32}}\ngeneration: {{size: [64, 64], compile: none}}\n"
        f"prompts: {{source: p.parquet, shuffle: {shuffle}}}\noutput: {{path: corpus}}\n"
    )
    config = load_config(tmp_path / "c.yaml", [f"output.path={tmp_path}/corpus"])
    plan = Plan.build(config, open_source(config.prompts))
    coordinator = open_coordinator(
        open_store(config.output.path), config, Plan.build(config, open_source(config.prompts))
    )

    def leases() -> Iterator[PlannedShard]:
        for i in range(plan.shards):
            answer = coordinator.next(f"w{i}#1")
            assert isinstance(answer, Lease)
            yield from (task.planned for task in answer.tasks)

    assert list(leases()) == [plan.shard(index) for index in range(plan.shards)]
