"""The coordinator alone, with a clock that the test turns: leases, budgets, deadlines, restarts."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cluster.book import SILENCE
from pipeline.cluster.coordinator import STALL, Coordinator
from pipeline.cluster.fates import STORAGE_PATIENCE
from pipeline.cluster.history import MOST_BLAMED
from pipeline.cluster.pace import FIRST_DEADLINE
from pipeline.cluster.protocol import Compiling, Failure, FailureKind, Lease, Report, Stop, Task, Wait
from pipeline.cluster.records import open_coordinator
from pipeline.config.schema import Config
from pipeline.corpus import open_store
from pipeline.errors import StoreError
from pipeline.prompts import PlannedShard, Sample
from tests.cluster.inline import Inline

LOAD_TIMEOUT = 3000.0


class Shards:
    """A plan of so many shards of so many samples, each with its own prompt."""

    def __init__(self, shards: int, samples: int = 4):
        self.shards, self.samples = shards, samples

    def shard(self, index: int) -> PlannedShard:
        keys = [f"{index:06d}{i:05d}" for i in range(self.samples)]
        return PlannedShard(
            index=index,
            samples=tuple(
                Sample(
                    index=index * self.samples + i,
                    key=key,
                    shard=index,
                    prompt=f"prompt {key}",
                    negative_prompt="",
                    seed=i,
                    width=8,
                    height=8,
                    prompt_index=index * self.samples + i,
                    repetition=0,
                )
                for i, key in enumerate(keys)
            ),
        )


class Desk:
    """A coordinator together with the storage and the clock that it is given."""

    def __init__(self, shards: int = 8, samples: int = 4, *, timeout: float | None = None, error_budget: int = 3):
        self.plan = Shards(shards, samples)
        self.time = 0.0
        self.committed: dict[int, dict[str, int]] = {}
        self.records: list[Failure] = []
        self.settings: dict[str, Any] = {
            "error_budget": error_budget,
            "node_loss_budget": 5,
            "shard_timeout": timeout,
            "load_timeout": LOAD_TIMEOUT,
            "committed": self.found,
            "threads": Inline(),
        }
        self.starts = 0
        self.start()

    def found(self, shards: Collection[int]) -> dict[int, dict[str, int]]:
        return {shard: self.committed[shard] for shard in shards if shard in self.committed}

    def start(self, held=None) -> None:
        """A new coordinator, as after the death of the old one."""
        self.starts += 1
        self.coordinator = Coordinator(
            self.plan,
            done=dict(self.committed),
            past=list(self.records),
            record=self.records.append,
            token=f"t{self.starts}",
            held=held,
            clock=lambda: self.time,
            **self.settings,
        )

    def wait(self, seconds: float) -> None:
        """Time passes, and the driver asks as it does, only not so often."""
        end = self.time + seconds
        while self.time < end:
            self.time = min(end, self.time + STALL / 2)
            self.coordinator.tick()

    def lease(self, worker: str, done: Sequence[Report] = (), holding: Iterable[Lease] = ()) -> Lease:
        answer = self.coordinator.next(worker, done, [lease.id for lease in holding])
        assert isinstance(answer, Lease), answer
        return answer

    def begin(self, worker: str, lease: Lease) -> Lease | Wait | Stop:
        """The worker starts a lease, and asks for the one after it."""
        return self.coordinator.next(worker, [], [lease.id], running=lease.id)

    def commit(self, task: Task) -> Report:
        shard = task.planned.index
        self.committed.setdefault(shard, {"ok": self.plan.samples - len(task.excluded), "failed": len(task.excluded)})
        return Report(
            shard=shard, attempt=task.attempt, counts=self.committed[shard], images=self.plan.samples, seconds=10.0
        )

    def fail(self, task: Task, error: str = "Traceback\nValueError: no") -> Report:
        return Report(shard=task.planned.index, attempt=task.attempt, error=error)

    @property
    def state(self) -> SimpleNamespace:
        return SimpleNamespace(**vars(self.coordinator.snapshot()))

    def kinds(self, shard: int) -> list[FailureKind]:
        return [record.kind for record in self.records if record.shard == shard]


class Storage(Executor):
    """The storage of a desk, which answers when it is told to; *asked* are the shards of each question to it."""

    def __init__(self, desk: Desk):
        self.asked: list[int] = []
        self._due: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._desk = desk
        desk.settings |= {"threads": self, "committed": self.committed}
        desk.start()

    def committed(self, shards: Collection[int]) -> dict[int, dict[str, int]]:
        self.asked.append(len(shards))
        return self._desk.found(shards)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._due.append((future, lambda: fn(*args, **kwargs)))
        return future

    def answer(self) -> None:
        due, self._due = self._due, []
        for future, happen in due:
            future.set_result(happen())


def test_one_worker_does_every_shard_once_in_order() -> None:
    desk = Desk(shards=5)
    seen, reports = [], []
    while isinstance(answer := desk.coordinator.next("a#1", reports), Lease):
        reports = []
        for task in answer.tasks:
            seen.append(task.planned.index)
            reports.append(desk.commit(task))
    assert answer == Stop(reason="finished")
    assert seen == [0, 1, 2, 3, 4]
    assert desk.state.finished
    assert desk.state.counts == {"ok": 20, "failed": 0}


def test_a_resumed_run_leases_only_what_is_missing() -> None:
    desk = Desk(shards=4)
    desk.committed = {0: {"ok": 4}, 2: {"ok": 3, "quarantined": 1}}
    desk.start()
    assert desk.state.resumed == 2
    first = desk.lease("a#1")
    second = desk.lease("b#1")
    assert [first.tasks[0].planned.index, second.tasks[0].planned.index] == [1, 3]
    assert desk.state.counts == {"ok": 7, "quarantined": 1}


def test_nothing_left_to_do_stops_at_once() -> None:
    desk = Desk(shards=1)
    desk.committed = {0: {"ok": 4}}
    desk.start()
    assert desk.coordinator.next("a#1") == Stop(reason="finished")


def test_one_lease_is_prefetched_and_no_second() -> None:
    desk = Desk(shards=8)
    first = desk.lease("a#1")
    second = desk.begin("a#1", first)
    assert isinstance(second, Lease)
    answer = desk.coordinator.next("a#1", [], [first.id, second.id], running=first.id)
    assert isinstance(answer, Wait)


def test_the_last_shards_are_not_hoarded() -> None:
    desk = Desk(shards=3)
    first, other = desk.lease("a#1"), desk.lease("b#1")
    assert isinstance(desk.begin("a#1", first), Wait), "the last shard goes to whoever is free first"
    last = desk.lease("b#1", [desk.commit(other.tasks[0])])
    assert last.tasks[0].planned.index == 2


def test_leases_grow_with_workers_and_shrink_near_the_end() -> None:
    desk = Desk(shards=4000)
    workers = [f"w{i}#1" for i in range(500)]
    leases = {worker: desk.lease(worker) for worker in workers}
    assert {len(lease.tasks) for lease in leases.values()} == {1}, "one, until shards are measured"
    sizes = []
    for _ in range(10_000):
        for worker in workers:
            reports = [desk.commit(task) for task in leases[worker].tasks] if worker in leases else []
            answer = desk.coordinator.next(worker, reports)
            leases.pop(worker, None)
            if isinstance(answer, Lease):
                leases[worker] = answer
                sizes.append(len(answer.tasks))
        if desk.state.finished:
            break
    assert desk.state.finished
    # 10 s a shard, 500 workers: 0.06 s * 500 = 30 s between calls, so three shards at once.
    assert max(sizes) == 3
    assert sizes[-1] == 1
    assert desk.state.done == 4000


def test_a_reply_that_was_lost_is_leased_anew() -> None:
    desk = Desk(shards=2)
    lost = desk.lease("a#1")
    again = desk.lease("a#1")  # holds nothing, as it says: the first answer never arrived
    assert again.tasks[0].planned.index == lost.tasks[0].planned.index
    assert again.tasks[0].attempt != lost.tasks[0].attempt
    assert desk.records == []


def test_a_stale_report_is_refused() -> None:
    desk = Desk(shards=1)
    first = desk.lease("a#1")
    desk.begin("a#1", first)
    desk.coordinator.lost("a#1", FailureKind.node_loss, "node gone")
    second = desk.lease("b#1")
    desk.coordinator.report("a#1", [desk.fail(first.tasks[0])])
    assert desk.kinds(0) == [FailureKind.node_loss], "the error of an attempt that is not leased charges nobody"
    desk.coordinator.report("a#1", [Report(shard=0, attempt=first.tasks[0].attempt, counts={"ok": 4})])
    assert desk.state.done == 0, "and its success is not believed unless it is in storage"
    report = desk.commit(second.tasks[0])
    desk.coordinator.report("b#1", [report])
    desk.coordinator.report("b#1", [report])
    assert desk.state.done == 1
    assert desk.state.counts == {"ok": 4, "failed": 0}, "a doubled report counts once"


def test_a_stale_worker_that_did_commit_is_believed() -> None:
    desk = Desk(shards=2)
    first = desk.lease("a#1")
    desk.begin("a#1", first)
    desk.coordinator.lost("a#1", FailureKind.crash, "died")
    second = desk.lease("b#1")
    assert second.tasks[0].planned.index == 0
    desk.coordinator.report("a#1", [desk.commit(first.tasks[0])])
    assert desk.state.leased == 0, "nobody need do it again"
    last = desk.lease("b#1", [desk.commit(second.tasks[0])])
    assert desk.coordinator.next("b#1", [desk.commit(last.tasks[0])]) == Stop(reason="finished")
    assert desk.state.counts["ok"] == 8


def test_a_crash_charges_what_ran_and_not_what_was_prefetched() -> None:
    desk = Desk(shards=4)
    running = desk.lease("a#1")
    prefetched = desk.begin("a#1", running)
    assert isinstance(prefetched, Lease)
    desk.coordinator.lost("a#1", FailureKind.crash, "killed")
    assert [(r.shard, r.kind) for r in desk.records] == [(0, FailureKind.crash)]
    assert desk.lease("b#1").tasks[0].planned.index == 1, "the prefetched shard is first in line"


def test_of_several_shards_under_way_a_crash_charges_none_until_it_is_known_which() -> None:
    desk = Desk(shards=2, timeout=1000.0)
    first = desk.lease("a#1")
    second = desk.begin("a#1", first)
    assert isinstance(second, Lease)
    desk.coordinator.next("a#1", [], [second.id, first.id], running=second.id)  # the first is being committed
    desk.coordinator.lost("a#1", FailureKind.crash, "killed")
    assert desk.records == []
    leases = []
    for _ in range(2):
        lease = desk.lease("b#1")
        assert lease.suspect
        leases.append(lease.tasks[0].planned.index)
        desk.begin("b#1", lease)
        if lease.tasks[0].planned.index == 0:
            desk.coordinator.report("b#1", [desk.commit(lease.tasks[0])])
        else:
            desk.coordinator.lost("b#1", FailureKind.crash, "killed")
    assert leases == [0, 1]
    assert [(r.shard, r.kind) for r in desk.records] == [(1, FailureKind.crash)]


def test_a_crash_after_the_commit_redoes_nothing() -> None:
    desk = Desk(shards=2)
    lease = desk.lease("a#1")
    desk.begin("a#1", lease)
    desk.commit(lease.tasks[0])  # but the report dies with its worker
    desk.coordinator.lost("a#1", FailureKind.crash, "killed")
    assert desk.records == []
    assert desk.state.done == 1
    assert desk.lease("b#1").tasks[0].planned.index == 1


def test_a_worker_counted_as_lost_is_told_to_stop() -> None:
    desk = Desk()
    desk.lease("a#1")
    desk.coordinator.lost("a#1", FailureKind.crash, "unreachable")
    assert desk.coordinator.next("a#1") == Stop(reason="counted as lost")


def test_a_retry_goes_to_another_place_if_there_is_one() -> None:
    desk = Desk(shards=2)
    mine, theirs = desk.lease("a#1"), desk.lease("b#1")
    answer = desk.coordinator.next("a#1", [desk.fail(mine.tasks[0])])
    assert isinstance(answer, Wait), "not where it has just failed"
    retry = desk.lease("b#1", [desk.commit(theirs.tasks[0])])
    assert retry.tasks[0].planned.index == 0
    assert retry.suspect


def test_a_lone_worker_retries_its_own_failures() -> None:
    desk = Desk(shards=1)
    lease = desk.lease("a#1")
    assert desk.lease("a#1", [desk.fail(lease.tasks[0])]).tasks[0].planned.index == 0


def run_alone(desk: Desk, poison: set[str], most: int = 300, kill: bool = False) -> Stop:
    """One worker after another does everything; poisoned samples raise, or with *kill* take their worker along."""
    number, reports = 1, []
    for _ in range(most):
        worker = f"a#{number}"
        answer = desk.coordinator.next(worker, reports)
        reports = []
        if isinstance(answer, Stop):
            return answer
        if isinstance(answer, Wait):
            desk.time += answer.seconds
            continue
        desk.begin(worker, answer)
        for task in answer.tasks:
            keys = {sample.key for sample in task.planned.samples} - task.excluded
            keys = keys & task.probe if task.probe is not None else keys
            if not keys & poison:
                if task.probe is None:
                    reports.append(desk.commit(task))
                else:
                    reports.append(Report(shard=task.planned.index, attempt=task.attempt))
            elif kill:
                desk.coordinator.report(worker, reports)
                desk.coordinator.lost(worker, FailureKind.crash, "died of SIGSEGV")
                number, reports = number + 1, []
                break
            else:
                reports.append(desk.fail(task))
    raise AssertionError("the run does not end")


@pytest.mark.parametrize("kill", [False, True])
def test_a_poisoned_sample_is_left_out_and_its_shard_lives(kill: bool) -> None:
    desk = Desk(shards=6, samples=16)
    poison = {"00000300007"}
    assert run_alone(desk, poison, kill=kill).reason == "finished"
    assert desk.state.blamed == ["00000300007"]
    assert desk.committed[3] == {"ok": 15, "failed": 1}
    assert desk.state.given_up == {}
    assert desk.kinds(3) == [FailureKind.crash if kill else FailureKind.error] * 3 + [FailureKind.blamed]
    assert {record.shard for record in desk.records} == {3}


def test_several_poisoned_samples_are_found_one_after_the_other() -> None:
    desk = Desk(shards=5, samples=16)
    poison = {"00000200001", "00000200009", "00000200015"}
    run_alone(desk, poison)
    assert set(desk.state.blamed) == poison
    assert desk.committed[2] == {"ok": 13, "failed": 3}


def test_blame_survives_a_restart() -> None:
    desk = Desk(shards=5, samples=16)
    run_alone(desk, {"00000200001"})
    del desk.committed[2]
    desk.start()
    lease = desk.lease("z#1")
    assert lease.tasks[0].excluded == {"00000200001"}
    assert not lease.suspect


def test_the_error_budget_survives_a_restart() -> None:
    desk = Desk(shards=1, samples=8)
    for _ in range(2):
        lease = desk.lease("a#1")
        desk.coordinator.next("a#1", [desk.fail(lease.tasks[0])])
        desk.start()
    third = desk.lease("a#1")
    assert third.tasks[0].probe is None
    probe = desk.lease("a#1", [desk.fail(third.tasks[0])])
    assert probe.tasks[0].probe == {f"000000{i:05d}" for i in range(4)}


def test_a_shard_that_fails_for_no_samples_sake_is_given_up_and_stays_so() -> None:
    desk = Desk(shards=5)
    broken = 2

    def work() -> None:
        reports: list[Report] = []
        while isinstance(answer := desk.coordinator.next("a#1", reports), Lease):
            reports = []
            for task in answer.tasks:
                if task.probe is not None:
                    reports.append(Report(shard=task.planned.index, attempt=task.attempt))
                elif task.planned.index == broken:
                    reports.append(desk.fail(task, "OSError: cannot write"))
                else:
                    reports.append(desk.commit(task))

    work()
    assert desk.state.finished
    assert desk.state.given_up == {broken: "OSError: cannot write"}
    assert desk.state.blamed == []
    assert desk.kinds(broken) == [FailureKind.error] * 6 + [FailureKind.given_up]
    desk.start()
    assert desk.coordinator.next("a#1") == Stop(reason="finished")
    assert desk.state.given_up == {broken: "OSError: cannot write"}


def test_too_many_poisoned_samples_give_up_the_shard() -> None:
    desk = Desk(shards=1, samples=64)
    poison = {f"000000{i:05d}" for i in range(1, 64, 3)}
    assert len(poison) > MOST_BLAMED
    run_alone(desk, poison, most=2000)
    assert list(desk.state.given_up) == [0]


def test_node_losses_have_a_budget_of_their_own() -> None:
    desk = Desk(shards=1)
    for i in range(5):
        lease = desk.lease(f"n{i}#1")
        assert lease.tasks[0].probe is None
        desk.begin(f"n{i}#1", lease)
        desk.coordinator.lost(f"n{i}#1", FailureKind.node_loss, "node gone")
    assert desk.kinds(0) == [FailureKind.node_loss] * 5 + [FailureKind.given_up]
    assert desk.state.finished


def test_a_node_lost_under_a_probe_blames_nobody() -> None:
    desk = Desk(shards=1, samples=2)
    for _ in range(3):
        lease = desk.lease("a#1")
        desk.coordinator.report("a#1", [desk.fail(lease.tasks[0])])
    for i in range(10):
        probe = desk.lease(f"b{i}#1")
        assert probe.tasks[0].probe == {"00000000000"}
        desk.begin(f"b{i}#1", probe)
        desk.coordinator.lost(f"b{i}#1", FailureKind.node_loss, "node gone")


def test_a_wrong_config_stops_the_run_with_its_first_error() -> None:
    desk = Desk(shards=100)
    reports: list[Report] = []
    failures = 0
    while isinstance(answer := desk.coordinator.next("a#1", reports), Lease):
        reports = [desk.fail(task, f"KeyError: {failures}") for task in answer.tasks]
        failures += 1
    assert isinstance(answer, Stop)
    assert failures == 4
    assert answer.reason.startswith("4 of the first 4 shards failed; the first error was:\nKeyError: 0")
    assert desk.state.stopped == answer.reason
    for _ in range(5):  # and however often that is tried, no shard pays for it
        desk.start()
        reports = []
        while isinstance(answer := desk.coordinator.next("a#1", reports), Lease):
            reports = [desk.fail(task) for task in answer.tasks]
    desk.start()
    assert desk.lease("a#1").tasks[0].probe is None
    assert desk.state.given_up == {}


def test_nor_does_a_shard_pay_that_others_had_when_a_wrong_config_stopped_the_run() -> None:
    desk = Desk(shards=12)
    for _ in range(4):
        leases = {f"w{i}#1": desk.lease(f"w{i}#1") for i in range(8)}
        for worker, lease in leases.items():
            desk.coordinator.report(worker, [desk.fail(task) for task in lease.tasks])
        assert desk.state.stopped is not None
        assert sum(record.kind is FailureKind.pardoned for record in desk.records) == len(desk.records) / 2
        desk.start()
    assert run_alone(desk, set()).reason == "finished"
    assert sum(record.kind is FailureKind.error for record in desk.records) == 32


def test_a_few_bad_shards_among_the_first_do_not_stop_the_run() -> None:
    desk = Desk(shards=40, samples=4)
    poison = {f"{shard:06d}00001" for shard in range(0, 12, 3)}
    assert run_alone(desk, poison).reason == "finished"
    assert set(desk.state.blamed) == poison


def test_a_place_where_everything_fails_is_parked() -> None:
    desk = Desk(shards=60)
    for i in range(60):
        good = desk.coordinator.next("good#1")
        bad = desk.coordinator.next("bad#1")
        reports = [desk.fail(task) for task in bad.tasks] if isinstance(bad, Lease) else []
        desk.coordinator.report("bad#1", reports)
        if isinstance(good, Lease):
            desk.coordinator.report("good#1", [desk.commit(task) for task in good.tasks])
        if i == 20:
            assert desk.state.parked == ["bad#1"]
    # Replacing the worker does not mend the place.
    assert isinstance(desk.coordinator.next("bad#2"), Wait | Stop)
    assert sum(record.kind is FailureKind.error for record in desk.records) <= 4
    assert all(record.kind is FailureKind.error for record in desk.records)


def test_a_place_from_which_nothing_can_be_stored_is_parked_and_its_shards_are_done_elsewhere() -> None:
    desk, parked = Desk(shards=30), set()
    while not desk.state.finished:
        parked.update(desk.state.parked)
        bad, good = desk.coordinator.next("bad#1"), desk.coordinator.next("good#1")
        if isinstance(bad, Lease):
            refused = [replace(desk.fail(task, "forbidden"), storage=True) for task in bad.tasks]
            desk.coordinator.report("bad#1", refused)
        if isinstance(good, Lease):
            desk.coordinator.report("good#1", [desk.commit(task) for task in good.tasks])
    assert parked == {"bad#1"}
    assert desk.records == []
    assert desk.state.counts["ok"] == 120
    assert desk.state.stopped is None


def test_storage_that_refuses_everything_ends_the_run_for_all_who_ask() -> None:
    desk = Desk(shards=30)
    leases = {worker: desk.lease(worker) for worker in ("a#1", "b#1", "c#1")}
    refusals = {w: [replace(desk.fail(lease.tasks[0], "full"), storage=True)] for w, lease in leases.items()}
    desk.coordinator.report("a#1", refusals["a#1"])
    desk.coordinator.report("b#1", refusals["b#1"])
    desk.wait(STORAGE_PATIENCE)
    with pytest.raises(StoreError, match="full; 3 commits in a row failed in 120 s, and the run ends"):
        desk.coordinator.report("c#1", refusals["c#1"])
    for ask in (desk.coordinator.snapshot, lambda: desk.coordinator.next("a#1")):
        with pytest.raises(StoreError, match="full; 3 commits in a row failed"):
            ask()
    assert desk.records == []


def test_storage_that_refuses_everything_ends_a_run_whose_only_worker_seldom_calls() -> None:
    """Without a driver that calls all the time, as on the local backend, the time between two calls is work."""
    desk = Desk(shards=30)

    def refused() -> list[Report]:
        lease = desk.lease("a#1")
        desk.time += 6 * STALL
        return [replace(desk.fail(task, "503"), storage=True) for task in lease.tasks]

    desk.coordinator.report("a#1", refused())
    desk.coordinator.report("a#1", refused())
    third = refused()
    with pytest.raises(StoreError, match="503; 3 commits in a row failed in 120 s, and the run ends"):
        desk.coordinator.report("a#1", third)
    assert desk.records == []


def test_a_bad_moment_of_storage_ends_no_run_however_many_commits_fail_in_it() -> None:
    desk = Desk(shards=40)
    for _ in range(2):  # and a second one is counted from its own beginning
        leases = {f"w{i}#1": desk.lease(f"w{i}#1") for i in range(12)}
        for worker, lease in leases.items():
            desk.coordinator.report(worker, [replace(desk.fail(lease.tasks[0], "503"), storage=True)])
            desk.wait(1.0)
        again = desk.lease("w0#1")
        desk.coordinator.report("w0#1", [desk.commit(again.tasks[0])])
        desk.wait(STORAGE_PATIENCE)
    assert desk.records == []
    assert desk.state.stopped is None
    while isinstance(answer := desk.coordinator.next("new#1"), Lease):  # at a place where nothing failed
        desk.coordinator.report("new#1", [desk.commit(task) for task in answer.tasks])
    assert desk.state.counts["ok"] == 160


def test_a_loss_that_cannot_be_written_down_is_raised_for_all_who_ask(tmp_path: Path) -> None:
    """The driver does not wait to hear what became of ``lost``, nor does the coordinator wait for storage."""
    config = Config()
    config.output.path = str(tmp_path)
    coordinator = open_coordinator(open_store(config.output.path), config, Shards(4))
    lease = coordinator.next("a#1")
    assert isinstance(lease, Lease)
    coordinator.next("a#1", [], [lease.id], running=lease.id)
    (tmp_path / "failures").write_text("in the way")
    coordinator.lost("a#1", FailureKind.crash, "killed")

    def wait() -> None:
        while True:
            coordinator.snapshot()
            time.sleep(0.01)

    with pytest.raises(StoreError, match="failures"):
        wait()
    (tmp_path / "failures").unlink()
    for ask in (coordinator.snapshot, lambda: coordinator.next("b#1")):
        with pytest.raises(StoreError, match="failures"):
            ask()
    assert open_coordinator(open_store(config.output.path), config, Shards(4)).snapshot().done == 0


def test_the_last_place_is_never_parked() -> None:
    desk = Desk(shards=30, samples=4)
    poison = {f"{shard:06d}00002" for shard in range(18, 26)}
    assert run_alone(desk, poison, most=600).reason == "finished"
    assert set(desk.state.blamed) == poison


def test_a_hung_worker_loses_its_lease_and_is_named() -> None:
    desk = Desk(shards=2, timeout=60.0)
    lease = desk.lease("a#1")
    desk.begin("a#1", lease)
    desk.wait(59.0)
    assert desk.state.hung == []
    desk.wait(2.0)
    assert desk.state.hung == ["a#1"]
    assert desk.kinds(0) == [FailureKind.timeout]
    desk.coordinator.lost("a#1", FailureKind.crash, "killed by the driver")
    assert desk.kinds(0) == [FailureKind.timeout], "charged once"


def test_deadlines_come_from_measured_time() -> None:
    desk = Desk(shards=40)
    slow = desk.lease("slow#1")
    desk.begin("slow#1", slow)
    desk.wait(FIRST_DEADLINE - 1)
    assert desk.state.hung == []
    for _ in range(5):
        lease = desk.lease("a#1")
        desk.coordinator.report("a#1", [desk.commit(task) for task in lease.tasks])
    desk.wait(1.0)
    assert desk.state.hung == ["slow#1"], "10 s a shard are known by now, and an hour is too long"


def test_a_prefetched_lease_has_no_deadline_until_it_is_begun() -> None:
    desk = Desk(shards=8, timeout=60.0)
    first = desk.lease("a#1")
    second = desk.begin("a#1", first)
    assert isinstance(second, Lease)
    desk.wait(50.0)
    desk.coordinator.next("a#1", [desk.commit(first.tasks[0])], [second.id], running=second.id)
    desk.wait(50.0)
    assert desk.state.hung == []


def test_each_shard_of_a_lease_has_its_own_time() -> None:
    """However many were done before it: what is left to do has the time of what is left, from the last report on."""
    desk = Desk(shards=40, timeout=45.0)
    first = desk.lease("a#1")
    quick = replace(desk.commit(first.tasks[0]), seconds=0.01)  # so short that they are leased by the handful
    lease = desk.lease("a#1", [quick])
    assert len(lease.tasks) == 6
    desk.begin("a#1", lease)
    for task in lease.tasks:
        desk.wait(30.0)
        assert desk.state.hung == []
        desk.coordinator.report("a#1", [desk.commit(task)])


def test_a_worker_that_hangs_within_a_lease_is_found_in_the_time_of_what_is_left() -> None:
    desk = Desk(shards=40, timeout=45.0)
    first = desk.lease("a#1")
    lease = desk.lease("a#1", [replace(desk.commit(first.tasks[0]), seconds=0.01)])
    desk.begin("a#1", lease)
    *done, last = lease.tasks
    for task in done:
        desk.wait(30.0)
        desk.coordinator.report("a#1", [desk.commit(task)])
    desk.wait(46.0)
    assert desk.state.hung == ["a#1"]
    assert desk.kinds(last.planned.index) == [FailureKind.timeout]


def compiling(desk: Desk, task: Task, *, begun: bool, said: Sequence[str] = ()) -> None:
    desk.coordinator.report("a#1", [], Compiling(attempt=task.attempt, begun=begun, said=said))


def test_what_compiling_takes_is_not_counted_and_is_told() -> None:
    desk = Desk(shards=2, timeout=60.0)
    lease = desk.lease("a#1")
    desk.begin("a#1", lease)
    desk.wait(50.0)
    compiling(desk, lease.tasks[0], begun=True, said=["compiling plain-2x4"])
    assert desk.state.log == ["worker a#1: compiling plain-2x4"]
    assert desk.state.patience == LOAD_TIMEOUT
    desk.wait(LOAD_TIMEOUT - 1)
    compiling(desk, lease.tasks[0], begun=False)
    desk.wait(9.0)
    assert desk.state.hung == []
    assert desk.state.patience < LOAD_TIMEOUT
    desk.wait(2.0)
    assert desk.state.hung == ["a#1"], "61 s were of its own"


def test_a_worker_that_hangs_while_it_compiles_is_found_in_the_time_of_loading() -> None:
    desk = Desk(shards=2, timeout=60.0)
    lease = desk.lease("a#1")
    desk.begin("a#1", lease)
    compiling(desk, lease.tasks[0], begun=True)
    desk.wait(LOAD_TIMEOUT + 1)
    assert desk.state.hung == ["a#1"]
    assert desk.state.patience < LOAD_TIMEOUT, "nobody compiles any more"


def test_of_a_lease_of_several_shards_only_what_compiling_took_is_left_out() -> None:
    desk = Desk(shards=40, timeout=45.0)
    first = desk.lease("a#1")
    lease = desk.lease("a#1", [replace(desk.commit(first.tasks[0]), seconds=0.01)])
    desk.begin("a#1", lease)
    for before, task in pairwise(lease.tasks):
        compiling(desk, task, begun=True)
        desk.wait(100.0)
        desk.coordinator.report("a#1", [desk.commit(before)])  # it was drawn before, and is committed meanwhile
        desk.wait(100.0)
        compiling(desk, task, begun=False)
        assert desk.state.hung == []
    desk.wait(44.0)
    assert desk.state.hung == []
    desk.wait(2.0)
    assert desk.state.hung == ["a#1"]


def test_an_idle_worker_that_falls_silent_counts_as_hung() -> None:
    desk = Desk(shards=1)
    desk.lease("a#1")
    assert isinstance(desk.coordinator.next("b#1"), Wait)
    desk.wait(SILENCE - 1)
    desk.coordinator.next("a#1")
    assert desk.state.hung == []
    desk.wait(2)
    assert desk.state.hung == ["b#1"]
    assert desk.records == []


def test_while_the_coordinator_stands_still_nobody_is_late() -> None:
    """It waits for storage, say: the reports of all wait to be heard, and the first call of them must judge nobody."""
    desk = Desk(shards=8, timeout=60.0)
    leases = {worker: desk.lease(worker) for worker in ("a#1", "b#1", "c#1")}
    for worker in ("a#1", "b#1"):  # c#1 is idle, as far as the coordinator knows
        desk.begin(worker, leases[worker])
    desk.wait(59.0)
    desk.time += SILENCE + 1
    desk.coordinator.next("c#1", [], [leases["c#1"].id])
    assert desk.state.hung == []
    desk.coordinator.report("a#1", [desk.commit(leases["a#1"].tasks[0])])
    desk.wait(2.0)
    assert desk.state.hung == ["b#1"], "what came before the stall counts, and what comes after"
    assert desk.kinds(leases["b#1"].tasks[0].planned.index) == [FailureKind.timeout]


def test_a_report_that_was_heard_after_a_stall_gives_no_time_beyond_it() -> None:
    desk = Desk(shards=40, timeout=45.0)
    first = desk.lease("a#1")
    lease = desk.lease("a#1", [replace(desk.commit(first.tasks[0]), seconds=0.01)])
    desk.begin("a#1", lease)
    desk.time += 1000.0
    done, *left = lease.tasks
    desk.coordinator.next("a#1", [desk.commit(done)], [lease.id], running=lease.id)
    desk.wait(45.0 * len(left))
    assert desk.state.hung == []
    desk.wait(1.0)
    assert desk.state.hung == ["a#1"]


def test_a_draining_worker_finishes_and_gets_nothing_new() -> None:
    desk = Desk()
    lease = desk.lease("a#1")
    desk.coordinator.drain(["a#1"])
    assert isinstance(desk.begin("a#1", lease), Wait)
    assert desk.coordinator.next("a#1", [desk.commit(lease.tasks[0])]) == Stop(reason="draining")
    assert desk.state.done == 1


def test_spare_workers_are_let_go_in_the_tail() -> None:
    desk = Desk(shards=2)
    leases = {worker: desk.lease(worker) for worker in ("a#1", "b#1")}
    answers = [desk.coordinator.next(f"c{i}#1") for i in range(5)]
    assert [type(answer) for answer in answers] == [Wait, Wait, Stop, Stop, Stop], "one spare for each shard under way"
    assert len(leases) == 2


def test_stop_gives_out_nothing_more() -> None:
    desk = Desk()
    lease = desk.lease("a#1")
    desk.coordinator.stop("interrupted")
    assert desk.coordinator.next("a#1", [], [lease.id]) == Stop(reason="interrupted")
    desk.coordinator.report("a#1", [desk.commit(lease.tasks[0])])
    assert desk.state.done == 1, "what was under way still counts"


def test_a_new_coordinator_adopts_what_workers_hold() -> None:
    desk = Desk(shards=4)
    running = desk.lease("a#1")
    prefetched = desk.begin("a#1", running)
    assert isinstance(prefetched, Lease)
    desk.start(held={"a#1": [running.held(), prefetched.held()]})
    assert desk.lease("b#1").tasks[0].planned.index == 2, "nobody does a second time what a#1 holds"
    answer = desk.coordinator.next("a#1", [desk.commit(running.tasks[0])], [prefetched.id], running=prefetched.id)
    assert isinstance(answer, Lease | Wait)
    assert desk.state.done == 1
    assert desk.records == []


def test_two_workers_holding_one_shard_are_both_heard() -> None:
    desk = Desk(shards=1)
    first = desk.lease("a#1")
    desk.start(held={})
    second = desk.lease("b#1")
    desk.start(held={"a#1": [first.held()], "b#1": [second.held()]})
    desk.coordinator.report("b#1", [desk.commit(second.tasks[0])])
    assert desk.state.finished
    desk.coordinator.report("a#1", [desk.commit(first.tasks[0])])
    assert desk.state.counts == {"ok": 4, "failed": 0}


def test_a_held_probe_is_not_adopted() -> None:
    desk = Desk(shards=1, samples=4)
    for _ in range(3):
        lease = desk.lease("a#1")
        desk.coordinator.report("a#1", [desk.fail(lease.tasks[0])])
    probe = desk.lease("a#1")
    assert probe.tasks[0].probe
    desk.start(held={"a#1": [probe.held()]})
    assert desk.lease("b#1").tasks[0].probe == probe.tasks[0].probe
    desk.coordinator.report("a#1", [Report(shard=0, attempt=probe.tasks[0].attempt)])
    assert desk.state.done == 0


def test_a_given_up_shard_that_turns_out_committed_is_done() -> None:
    desk = Desk(shards=1)
    desk.records = [Failure(shard=0, kind=FailureKind.given_up, message="no")]
    desk.committed = {0: {"ok": 4}}
    desk.start()
    assert desk.state.given_up == {}
    assert desk.state.done == 1


def test_however_many_are_lost_at_once_storage_is_asked_twice_and_nobody_waits_for_it() -> None:
    desk = Desk(shards=2000)
    storage = Storage(desk)
    leases = {f"w{i}#1": desk.lease(f"w{i}#1") for i in range(400)}
    prefetched = {worker: desk.begin(worker, lease) for worker, lease in leases.items()}
    lost = list(leases)[:100]
    desk.commit(leases[lost[0]].tasks[0])  # whose report dies with its worker
    for worker in lost:
        desk.coordinator.lost(worker, FailureKind.node_loss, "taken away")
    assert desk.state.in_doubt == 100
    again = [desk.lease("new#1").tasks[0].planned.index]  # what was not begun is in no doubt
    storage.answer()
    desk.coordinator.tick()
    storage.answer()  # what came up while the first was under way
    assert desk.state.done == 1
    assert storage.asked == [1, 99]
    for _ in range(8):  # the losses are written down, and each call continues with some of them
        storage.answer()
        desk.coordinator.tick()
    assert desk.state.in_doubt == 0
    charged = [leases[worker].tasks[0].planned.index for worker in lost[1:]]
    assert sorted(record.shard for record in desk.records) == charged
    again += [desk.lease(f"new#{i}").tasks[0].planned.index for i in range(2, 200)]
    held = [lease.tasks[0].planned.index for w in lost if isinstance(lease := prefetched[w], Lease)]
    assert again == held + charged, "what was lost goes before all others"


def test_a_run_is_not_over_while_its_last_shard_is_in_doubt() -> None:
    desk = Desk(shards=1)
    storage = Storage(desk)
    desk.begin("a#1", desk.lease("a#1"))
    desk.coordinator.lost("a#1", FailureKind.node_loss, "taken away")
    assert isinstance(desk.coordinator.next("b#1"), Wait)
    assert not desk.state.finished
    desk.time += 1.0
    while not isinstance(answer := desk.coordinator.next("b#1"), Lease):
        assert isinstance(answer, Wait)
        storage.answer()
    assert answer.tasks[0].planned.index == 0
