"""The worker's loop against a real coordinator, with a worker that only pretends to have a device."""

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.local import LocalDesk, run_local
from pipeline.cluster.loop import Loop
from pipeline.cluster.protocol import (
    Compiling,
    Counts,
    Drawn,
    Failure,
    FailureKind,
    Lease,
    Planner,
    Report,
    Wait,
)
from pipeline.cluster.records import open_coordinator
from pipeline.config.schema import BadRows, Config
from pipeline.corpus import (
    ManifestRow,
    Status,
    commit_shard,
    committed,
    evidence_url,
    failures,
    layout,
    open_store,
    publish_all,
)
from pipeline.errors import ConfigError, StoreError
from pipeline.prompts import Plan, PlannedShard, Sample, open_source
from tests.progress import Lines, Silent


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
        unbuildable: frozenset[int] = frozenset(),
        batch_seconds: float = 0.0,
    ):
        self.poison, self.commit_seconds, self.unbuildable = poison, commit_seconds, unbuildable
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
        compiling: Callable[[bool], None] = lambda begun: None,
    ) -> Future[Result]:
        self.on_device.append((planned.index, self.under_way))
        self._generate(planned, {sample.key for sample in planned.samples} - excluded)
        for _ in range(2):
            time.sleep(self.batch_seconds)
            drew(len(planned.samples) // 2)
        self.under_way += 1
        return self._threads.submit(self._commit, planned, attempt, excluded)

    def probe(
        self,
        planned: PlannedShard,
        keys: frozenset[str],
        excluded: frozenset[str] = frozenset(),
        compiling: Callable[[bool], None] = lambda begun: None,
    ) -> None:
        self._generate(planned, set(keys - excluded))

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self.closed = True

    def _generate(self, planned: PlannedShard, keys: set[str]) -> None:
        if self.poison in keys:
            raise ValueError(f"cannot draw {self.poison}")

    def _commit(self, planned: PlannedShard, attempt: str, excluded: frozenset[str]) -> Result:
        time.sleep(self.commit_seconds)
        self.under_way -= 1
        if planned.index in self.unbuildable:
            raise ValueError("a tar cannot be built of this")
        counts = {"ok": len(planned.samples) - len(excluded), "failed": len(excluded)}
        self.committed[planned.index], self.excluded[planned.index] = counts, excluded
        return Result(counts)


def coordinator_for(worker: Pretender, records: list[Failure]) -> Coordinator:
    return Coordinator(
        Shards(),
        done={},
        past=[],
        record=records.append,
        committed=lambda shards: {s: worker.committed[s] for s in shards if s in worker.committed},
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


def test_pictures_are_counted_as_batches_are_drawn_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cluster.loop.SECONDS_BETWEEN_WORDS", 0.0)
    worker, seen = Pretender(batch_seconds=0.1), Lines()  # longer than report_every of one worker, 0.06 s
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


class Compiler(Pretender):
    """Has something to compile for its first shard, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def take_said(self) -> Sequence[str]:
        said, self.said = self.said, []
        return said

    def process(
        self,
        planned: PlannedShard,
        attempt: str,
        excluded: frozenset[str] = frozenset(),
        drew: Callable[[int], None] = lambda images: None,
        compiling: Callable[[bool], None] = lambda begun: None,
    ) -> Future[Result]:
        if planned.index == 0:
            self.said.append("compiling plain-2x4")
            compiling(True)
            self.said.append("compiled plain-2x4")
            compiling(False)
        return super().process(planned, attempt, excluded, drew, compiling)


def test_that_a_task_waits_for_code_is_said_at_once_by_however_many_workers() -> None:
    from pipeline.cluster.protocol import Stop, Task

    tasks = tuple(Task(planned=Shards().shard(shard), attempt=f"a{shard}") for shard in range(2))
    desk = Recorder([Lease(id="l0", tasks=tasks, report_every=600.0), Wait(seconds=0.01), Stop(reason="finished")])
    worker = Compiler()
    Loop(worker, desk, said=worker.take_said).run()
    assert desk.drawn == [
        Compiling(attempt="a0", begun=True, said=("compiling plain-2x4",)),
        Compiling(attempt="a0", begun=False, said=("compiled plain-2x4",)),
    ]
    assert sorted(report.attempt for report in desk.reported) == ["a0", "a1"]


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


def test_a_commit_that_fails_by_the_shard_gives_it_up_and_blames_no_sample() -> None:
    worker, records = Pretender(unbuildable=frozenset({4})), []
    snapshot = run_local(coordinator_for(worker, records), worker, Silent())
    assert snapshot.finished
    assert list(snapshot.given_up) == [4]
    assert "ValueError: a tar cannot be built of this" in snapshot.given_up[4]
    assert snapshot.blamed == []
    assert sorted(worker.committed) == [0, 1, 2, 3, 5]


def test_a_fragile_worker_leaves_after_an_error_and_hands_back_what_it_held() -> None:
    worker, records = Pretender(poison="00000100000"), []
    coordinator = coordinator_for(worker, records)
    reason = Loop(worker, LocalDesk(coordinator, Silent()), fragile=True).run()
    assert reason == "left after an error, to begin afresh"
    while (snapshot := coordinator.snapshot()).in_doubt:
        time.sleep(0.01)
    assert (snapshot.done, snapshot.leased, snapshot.workers) == (1, 0, 0)
    assert [record.kind for record in records] == [FailureKind.error]
    fresh = Pretender(poison="00000100000")
    fresh.committed = worker.committed
    Loop(fresh, LocalDesk(coordinator, Silent())).run()
    assert coordinator.snapshot().finished
    assert sorted(fresh.committed) == list(range(6))


class Committer(Pretender):
    """Commits into a real corpus. ``before``, by shard, is what happens to it as the first commit of that shard begins;
    the folder that is in the way then is gone again as the next commit begins, unless it is to *stay*."""

    def __init__(self, corpus: Path, before: dict[int, Callable[[], None]] | None = None, stay: bool = False):
        super().__init__(commit_seconds=0.0)
        self.store, self.evidence = open_store(str(corpus)), open_store(evidence_url(str(corpus)))
        self.corpus, self.before, self.stay = corpus, dict(before or {}), stay

    def _commit(self, planned: PlannedShard, attempt: str, excluded: frozenset[str]) -> Result:
        time.sleep(self.commit_seconds)
        if not self.stay:
            unblock(self.corpus)
        self.before.pop(planned.index, lambda: None)()
        rows = [
            ManifestRow(
                key=sample.key,
                shard=planned.index,
                prompt=sample.prompt,
                caption="",
                seed=sample.seed,
                width=sample.width,
                height=sample.height,
                status=Status.failed,
                reason="nan",
            )
            for sample in planned.samples
        ]
        result = commit_shard(
            self.store,
            self.evidence,
            shard=planned.index,
            attempt=attempt,
            rows=rows,
            images={},
            columns=None,
            identity="i",
            corpus_format=layout.FORMAT,
            environment={},
            timings={},
        )
        return Result(result.record.counts)


def block(corpus: Path, folder: str) -> None:
    """Put a file where the folder is to be: whatever is written there fails, and nothing else."""
    if (corpus / folder).is_dir():
        (corpus / folder).rename(corpus / f"{folder}-away")
    (corpus / folder).write_text("in the way")


def unblock(corpus: Path) -> None:
    for path in list(corpus.glob("*")):
        if path.is_file():
            path.unlink()
    for away in corpus.glob("*-away"):
        away.rename(corpus / away.name.removesuffix("-away"))


def corpus_of(folder: Path) -> Config:
    config = Config()
    config.output.path = str(folder / "corpus")
    return config


def opened(config: Config, plan: Planner, known: Mapping[int, Counts] | None = None) -> Coordinator:
    return open_coordinator(open_store(config.output.path), config, plan, known=known)


def test_storage_that_refuses_everything_ends_the_run_and_is_charged_to_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cluster.fates.STORAGE_PATIENCE", 0.0)
    config, corpus = corpus_of(tmp_path), tmp_path / "corpus"
    worker = Committer(corpus, {2: lambda: block(corpus, "attempts")}, stay=True)
    with pytest.raises(
        StoreError, match=r"corpus/attempts.*; 3 commits in a row failed in 0 s, and the run ends"
    ) as caught:
        run_local(opened(config, Shards()), worker, Silent())
    assert "\n" not in str(caught.value)
    assert sorted(committed(worker.store)) == [0, 1]
    assert list(failures(worker.store)) == []
    unblock(corpus)
    again = Committer(corpus)
    assert run_local(opened(config, Shards()), again, Silent()).finished
    assert [shard for shard, _ in again.on_device] == [2, 3, 4, 5]
    assert sorted(committed(again.store)) == list(range(6))


def test_a_later_coordinator_finds_the_commits_made_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cluster.fates.STORAGE_PATIENCE", 0.0)
    config, corpus = corpus_of(tmp_path), tmp_path / "corpus"
    worker = Committer(corpus, {2: lambda: block(corpus, "attempts")}, stay=True)
    with pytest.raises(StoreError, match="in a row failed"):
        run_local(opened(config, Shards()), worker, Silent())
    unblock(corpus)
    known = {0: {"failed": 8}}  # what its driver had read before 1 was committed
    (corpus / "commits" / "000000.json").write_text("not to be read again")
    snapshot = opened(config, Shards(), known=known).snapshot()
    assert (snapshot.done, snapshot.resumed, snapshot.counts["failed"]) == (2, 2, 16)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("where", ["corpus", "scratch"])
def test_nothing_more_is_drawn_for_a_full_disk_and_it_is_said_once(
    where: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(number, os.strerror(number), "/tmp/lacuna-x/ok")

    corpus, seen = tmp_path / "corpus", Lines()
    worker = Committer(corpus, dict.fromkeys(range(2, 6), full))
    if where == "corpus":
        worker.before = {2: lambda: monkeypatch.setattr(os, "fsync", lambda handle: full())}
    snapshot = run_local(opened(corpus_of(tmp_path), Shards()), worker, seen)
    assert snapshot.stopped is not None
    assert "\n" not in snapshot.stopped
    expected = {
        "corpus": rf"{corpus}/attempts/.*: (no space left|disk quota exceeded|the file system is read-only)",
        "scratch": rf"\S+: {os.strerror(number)} in \S+ \(TMPDIR\), where shards are built",
    }[where]
    assert re.fullmatch(rf"{expected}; once there is room, the same command goes on", snapshot.stopped)
    assert sorted(committed(worker.store)) == [0, 1]
    drawn = [shard for shard, _ in worker.on_device]
    assert drawn == list(range(len(drawn))), "nothing is drawn twice"
    assert [line for shown in seen.snapshots for line in shown.log] == []
    assert list(failures(worker.store)) == []
    monkeypatch.undo()
    again = Committer(corpus)
    assert run_local(opened(corpus_of(tmp_path), Shards()), again, Silent()).finished
    assert [shard for shard, _ in again.on_device] == [2, 3, 4, 5]


def test_a_moment_without_storage_costs_a_drawing_and_no_budget(tmp_path: Path) -> None:
    corpus, seen = tmp_path / "corpus", Lines()
    worker = Committer(corpus, {shard: lambda: block(corpus, "attempts") for shard in (1, 4)})
    snapshot = run_local(opened(corpus_of(tmp_path), Shards()), worker, seen)
    assert snapshot.finished
    assert snapshot.counts["failed"] == 48
    assert list(failures(worker.store)) == []
    assert sorted(shard for shard, _ in worker.on_device) == [0, 1, 1, 2, 3, 4, 4, 5]
    said = [line for shown in seen.snapshots for line in shown.log]
    assert [line[:50] for line in said] == [
        f"shard 00000{shard}: not committed, and to be drawn again" for shard in (1, 4)
    ]


def test_what_is_committed_and_not_published_is_done(tmp_path: Path) -> None:
    corpus, seen = tmp_path / "corpus", Lines()
    worker = Committer(corpus, {2: lambda: block(corpus, "manifests")})
    snapshot = run_local(opened(corpus_of(tmp_path), Shards()), worker, seen)
    assert snapshot.finished
    assert snapshot.counts["failed"] == 48
    assert list(failures(worker.store)) == []
    assert [shard for shard, _ in worker.on_device] == list(range(6)), "nothing is drawn twice"
    said = [line for shown in seen.snapshots for line in shown.log]
    assert [line[:27] for line in said] == ["shard 000002: committed, an"]
    assert not worker.store.exists("manifests/000002.parquet")
    assert publish_all(worker.store, worker.evidence) == [2], "as the run does when it ends"
    assert worker.store.exists("manifests/000002.parquet")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("where", ["on the device's thread", "on the commit's thread"])
def test_a_failure_that_cannot_be_written_down_ends_the_run(where: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    worker = Committer(corpus, {1: lambda: block(corpus, "failures")}, stay=True)
    if where == "on the device's thread":
        worker.poison = "00000300003"
    else:
        worker.commit_seconds = 0.1  # longer than report_every: it is reported from there
        worker.before[3] = lambda: (_ for _ in ()).throw(ValueError("no tar"))
    with pytest.raises(StoreError, match="corpus/failures") as caught:
        run_local(
            opened(corpus_of(tmp_path), Shards()),
            worker,
            Silent(),
        )
    assert "\n" not in str(caught.value)
    assert worker.closed
    assert {0, 1, 2} <= set(committed(worker.store)) < set(range(6))


def parquet_plan(config: Config, prompts: Sequence[str]) -> Plan:
    path = Path(config.output.path).parent / "prompts.parquet"
    pq.write_table(pa.table({"prompt": list(prompts)}), path)
    config.prompts.source, config.output.samples_per_shard = str(path), 4
    return Plan.build(config, open_source(config.prompts))


def test_a_row_that_cannot_be_used_costs_its_shard_nothing(tmp_path: Path) -> None:
    """It is planned as a sample that is not drawn; what becomes of it is told by the tests of the worker."""
    config = corpus_of(tmp_path)
    config.prompts.bad_rows = BadRows.skip
    plan = parquet_plan(config, [f"row {i}" if i not in (21, 39) else " " for i in range(40)])
    worker = Committer(tmp_path / "corpus")
    snapshot = run_local(opened(config, plan), worker, Silent())
    assert snapshot.finished
    assert snapshot.given_up == {}
    assert sorted(committed(worker.store)) == list(range(10))
    assert list(failures(worker.store)) == []
    assert [bool(sample.fault) for sample in plan.shard(5).samples] == [False, True, False, False]


def test_prompts_that_cannot_be_read_end_the_run_and_give_up_nothing(tmp_path: Path) -> None:
    """That they cannot be reached for a while is no fault of the shards that are due then."""
    config = corpus_of(tmp_path)
    plan = parquet_plan(config, [f"row {i}" for i in range(40)])
    source = tmp_path / "prompts.parquet"
    source.rename(tmp_path / "away")
    worker = Committer(tmp_path / "corpus")
    with pytest.raises(ConfigError, match=r"prompts.parquet"):
        run_local(opened(config, plan), worker, Silent())
    assert list(failures(worker.store)) == []
    (tmp_path / "away").rename(source)
    assert run_local(opened(config, plan), Committer(tmp_path / "corpus"), Silent()).counts["failed"] == 40


class Recorder:
    """A desk with answers of its own, that notes what it is told."""

    def __init__(self, answers: Sequence[object]):
        self.answers = list(answers)
        self.asked: list[tuple[list[Report], list[str], str | None]] = []
        self.reported: list[Report] = []
        self.drawn: list[Drawn | Compiling] = []
        self.lock = threading.Lock()

    def ask(self, done: Sequence[Report], holding: Sequence[str], running: str | None) -> Callable[[], object]:
        self.asked.append((list(done), list(holding), running))
        self.reported += done
        return lambda: self.answers.pop(0)

    def report(self, done: Sequence[Report], word: Drawn | Compiling | None = None) -> None:
        self.reported += done
        self.drawn += [word] if word is not None else []

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
    end = time.monotonic() + 10
    while not (held := loop.held()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert all(shard not in worker.committed for lease in held for shard, _ in lease.attempts)
    thread.join(timeout=10)
    assert loop.held() == []
