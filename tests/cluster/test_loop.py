"""The worker's loop against a real coordinator, with a worker that only pretends to have a device."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.local import LocalDesk, run_local
from pipeline.cluster.loop import Loop
from pipeline.cluster.protocol import Drawn, Failure, FailureKind, Lease, Report, Snapshot, Wait
from pipeline.prompts import PlannedShard, Sample


class Shards:
    shards, samples = 6, 8

    def shard(self, index: int) -> PlannedShard:
        samples = (
            Sample(
                index=index * self.samples + i,
                key=f"{index:06d}{i:05d}",
                shard=index,
                prompt="",
                negative_prompt="",
                seed=0,
                width=8,
                height=8,
                prompt_index=index * self.samples + i,
                repetition=0,
                columns={},
            )
            for i in range(self.samples)
        )
        return PlannedShard(index=index, samples=tuple(samples))


@dataclass
class Result:
    counts: dict[str, int]
    images: int = 8
    seconds: float = 0.01
    device_seconds: float = 0.01


class Pretender:
    """Commits into a dict, on a thread of its own, some time after the device is done."""

    def __init__(
        self,
        poison: str = "",
        commit_seconds: float = 0.01,
        broken_storage: frozenset[int] = frozenset(),
        batch_seconds: float = 0.0,
    ):
        self.poison, self.commit_seconds, self.broken_storage = poison, commit_seconds, broken_storage
        self.batch_seconds = batch_seconds
        self.committed: dict[int, dict[str, int]] = {}
        self.excluded: dict[int, frozenset[str]] = {}
        self.on_device: list[tuple[int, int]] = []  # (shard, commits under way when it began)
        self.under_way = 0
        self.closed = False
        self._threads = ThreadPoolExecutor(1)

    def process(
        self,
        planned: PlannedShard,
        attempt: str,
        excluded: frozenset[str] = frozenset(),
        drew: Callable[[int], None] = lambda images: None,
    ) -> Future[Result]:
        self.on_device.append((planned.index, self.under_way))
        self._generate(planned, {sample.key for sample in planned.samples} - excluded)
        for _ in range(2):
            time.sleep(self.batch_seconds)
            drew(len(planned.samples) // 2)
        self.under_way += 1
        return self._threads.submit(self._commit, planned, excluded)

    def probe(self, planned: PlannedShard, keys: frozenset[str], excluded: frozenset[str] = frozenset()) -> None:
        self._generate(planned, set(keys - excluded))

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self.closed = True

    def _generate(self, planned: PlannedShard, keys: set[str]) -> None:
        if self.poison in keys:
            raise ValueError(f"cannot draw {self.poison}")

    def _commit(self, planned: PlannedShard, excluded: frozenset[str]) -> Result:
        time.sleep(self.commit_seconds)
        self.under_way -= 1
        if planned.index in self.broken_storage:
            raise OSError("no space left")
        counts = {"ok": len(planned.samples) - len(excluded), "failed": len(excluded)}
        self.committed[planned.index], self.excluded[planned.index] = counts, excluded
        return Result(counts)


class Silent:
    def update(self, snapshot: Snapshot) -> None: ...
    def say(self, line: str) -> None: ...
    def close(self) -> None: ...


def coordinator_for(worker: Pretender, records: list[Failure]) -> Coordinator:
    return Coordinator(
        Shards(),
        done={},
        past=[],
        record=records.append,
        committed=worker.committed.get,
        token="t",
        error_budget=3,
        node_loss_budget=20,
    )


def test_every_shard_is_committed_and_counted() -> None:
    worker, records = Pretender(), []
    snapshot = run_local(coordinator_for(worker, records), worker, Silent())
    assert snapshot.finished
    assert snapshot.counts == {"ok": 48, "failed": 0}
    assert snapshot.images == 48
    assert sorted(worker.committed) == list(range(6))
    assert worker.closed
    assert records == []


class Seen(Silent):
    """A progress that remembers."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []

    def update(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)


def test_pictures_are_counted_as_batches_are_drawn_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cluster.loop.SECONDS_BETWEEN_WORDS", 0.0)
    worker, seen = Pretender(batch_seconds=0.1), Seen()  # longer than report_every of one worker, 0.06 s
    last = run_local(coordinator_for(worker, []), worker, seen)
    assert (last.images, last.under_way) == (48, 0.0)
    drawn = [(snapshot.images, snapshot.done + snapshot.under_way) for snapshot in seen.snapshots]
    assert drawn == sorted(drawn)
    for half in range(1, 13):
        assert (4 * half, half / 2) in drawn


def test_many_workers_say_less_and_no_picture_is_lost() -> None:
    """Ten thousand workers may each call every ten minutes: what was drawn between is told with the next report."""
    from pipeline.cluster.protocol import Stop, Task

    task = Task(planned=Shards().shard(0), attempt="a0")
    desk = Recorder([Lease(id="l0", tasks=(task,), report_every=600.0), Wait(seconds=0.01), Stop(reason="finished")])
    Loop(Pretender(batch_seconds=0.01), desk).run()
    assert desk.drawn == []
    assert [report.images for report in desk.reported] == [8]


def test_the_device_does_not_wait_for_commits() -> None:
    worker = Pretender(commit_seconds=0.1)
    run_local(coordinator_for(worker, []), worker, Silent())
    assert sum(under_way > 0 for _, under_way in worker.on_device) >= 4


def test_a_sample_that_raises_is_left_out() -> None:
    worker, records = Pretender(poison="00000200003"), []
    snapshot = run_local(coordinator_for(worker, records), worker, Silent())
    assert snapshot.finished
    assert worker.excluded[2] == {"00000200003"}
    assert snapshot.counts == {"ok": 47, "failed": 1}
    assert "ValueError: cannot draw 00000200003" in records[0].message
    suspects = [under_way for shard, under_way in worker.on_device if shard == 2][1:]
    assert suspects == [0] * len(suspects), "what has failed once runs with nothing else at stake"


def test_storage_that_fails_gives_up_the_shard_and_blames_no_sample() -> None:
    worker, records = Pretender(broken_storage=frozenset({4})), []
    snapshot = run_local(coordinator_for(worker, records), worker, Silent())
    assert snapshot.finished
    assert list(snapshot.given_up) == [4]
    assert "OSError: no space left" in snapshot.given_up[4]
    assert snapshot.blamed == []
    assert sorted(worker.committed) == [0, 1, 2, 3, 5]


def test_a_fragile_worker_leaves_after_an_error_and_hands_back_what_it_held() -> None:
    worker, records = Pretender(poison="00000100000"), []
    coordinator = coordinator_for(worker, records)
    reason = Loop(worker, LocalDesk(coordinator, Silent()), fragile=True).run()
    assert reason == "left after an error, to begin afresh"
    snapshot = coordinator.snapshot()
    assert (snapshot.done, snapshot.leased, snapshot.workers) == (1, 0, 0)
    assert [record.kind for record in records] == [FailureKind.error]
    fresh = Pretender(poison="00000100000")
    fresh.committed = worker.committed
    Loop(fresh, LocalDesk(coordinator, Silent())).run()
    assert coordinator.snapshot().finished
    assert sorted(fresh.committed) == list(range(6))


class Recorder:
    """A desk with answers of its own, that notes what it is told."""

    def __init__(self, answers: Sequence[object]):
        self.answers = list(answers)
        self.asked: list[tuple[list[Report], list[str], str | None]] = []
        self.reported: list[Report] = []
        self.drawn: list[Drawn] = []
        self.lock = threading.Lock()

    def ask(self, done: Sequence[Report], holding: Sequence[str], running: str | None) -> Callable[[], object]:
        self.asked.append((list(done), list(holding), running))
        self.reported += done
        return lambda: self.answers.pop(0)

    def report(self, done: Sequence[Report], drawn: Drawn | None = None) -> None:
        self.reported += done
        self.drawn += [drawn] if drawn is not None else []

    def leave(self) -> None: ...


@pytest.mark.parametrize("report_every", [0.0, 1000.0])
def test_every_attempt_is_reported_once(report_every: float) -> None:
    from pipeline.cluster.protocol import Stop, Task

    plan = Shards()
    leases = [
        Lease(
            id=f"l{i}",
            tasks=tuple(Task(planned=plan.shard(s), attempt=f"a{s}") for s in (2 * i, 2 * i + 1)),
            report_every=report_every,
        )
        for i in range(3)
    ]
    answers = [leases[0], leases[1], Wait(seconds=0.01), leases[2], Wait(seconds=0.01), Stop(reason="finished")]
    desk = Recorder(answers)
    assert Loop(Pretender(), desk).run() == "finished"
    assert sorted(report.attempt for report in desk.reported) == [f"a{s}" for s in range(6)]
    assert [running for _, _, running in desk.asked] == [None, "l0", "l1", None, "l2", None]
    for _, holding, running in desk.asked:
        assert running is None or running in holding


def test_a_full_loop_holds_what_it_has_not_reported() -> None:
    worker = Pretender(commit_seconds=0.3)
    coordinator = coordinator_for(worker, [])
    loop = Loop(worker, LocalDesk(coordinator, Silent()))
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    time.sleep(0.15)
    held = loop.held()
    assert held
    assert all(shard not in worker.committed for lease in held for shard, _ in lease.attempts)
    thread.join(timeout=10)
    assert loop.held() == []
