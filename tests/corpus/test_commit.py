"""The commit protocol: whatever call a worker dies at, nothing is lost, nothing doubled, and the bytes are the same."""

import importlib.util
import socket
import threading
import time
import uuid
from pathlib import Path

import pytest

from pipeline.corpus import (
    FailureRecord,
    committed,
    committed_counts,
    committed_shards,
    create_run_record,
    failures,
    open_store,
    publish_all,
    record_failure,
    remote,
    verify,
)
from pipeline.errors import CorpusError, StoreError
from tests.counted import Counted

_spec = importlib.util.spec_from_file_location("corpus_parts", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
parts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parts)

CALLS = ("read", "write", "create", "copy", "delete", "delete_tree", "list", "exists", "size", "read_range")


class Crash(BaseException):
    """The process dies here: nothing may catch it."""


class Mortal:
    """A store whose process dies before or after its n-th call; *fuse* is shared by the stores of one process."""

    _lock = threading.Lock()

    def __init__(self, store, fuse, after: bool):
        self._store, self._fuse, self._after, self.url = store, fuse, after, store.url

    def __getattr__(self, name):
        call = getattr(self._store, name)
        if name not in CALLS:
            return call

        def mortal(*args):
            with self._lock:
                self._fuse[0] -= 1
                left = self._fuse[0]
            if left < 0:
                raise Crash  # a dead process makes no further call
            dies = left == 0
            if dies and not self._after:
                raise Crash
            result = call(*args)
            if dies:
                raise Crash
            return result

        return mortal


def contents(store, *folders):
    return {entry.path: store.read(entry.path) for folder in folders for entry in store.list(folder)}


def published(store, evidence):
    return contents(store, "train", "manifests") | contents(evidence, "quarantine")


def stores(path, options):
    return open_store(path, options), open_store(f"{path}.evidence", options)


def reference(tmp_path, kept=True):
    store, evidence = stores(str(tmp_path / "reference"), {})
    parts.commit(store, evidence, 0, "undisturbed", kept)
    return published(store, evidence)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_every_store_call_is_mended_by_a_resume(place, tmp_path, after):
    crash_everywhere(*place, reference(tmp_path), after, kept=True)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_while_a_shard_without_anything_to_train_on_is_committed_is_mended_too(tmp_path, after):
    expected = reference(tmp_path, kept=False)
    assert expected["train/000000.tar"] == bytes(10_240), "an archive without members"
    crash_everywhere(str(tmp_path / "corpus"), {}, expected, after, kept=False)


def crash_everywhere(path, options, expected, after, kept):
    crashes = 0
    for number in range(1, 100):
        store, evidence = stores(f"{path}-{number}-{after}", options)
        create_run_record(store, parts.run_record(1))
        fuse = [number]
        try:
            parts.commit(Mortal(store, fuse, after), Mortal(evidence, fuse, after), 0, "first", kept)
        except Crash:
            crashes += 1
        else:
            break
        # No torn tar at a final name, at any moment.
        for name, data in published(store, evidence).items():
            assert data == expected[name]
        publish_all(store, evidence)
        if 0 not in committed(store):  # the resume generates what is not committed, and nothing else
            parts.commit(store, evidence, 0, "second", kept)
        publish_all(store, evidence)
        assert published(store, evidence) == expected
        assert verify(f"{path}-{number}-{after}", options) == []
    assert crashes == 9  # three writes, the create, three copies, two deletes


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_while_repairing_is_mended_by_the_next_repair(place, tmp_path, after):
    expected = reference(tmp_path)
    path, options = place
    for number in range(1, 100):
        store, evidence = stores(f"{path}-r{number}-{after}", options)
        create_run_record(store, parts.run_record(1))
        fuse = [5]
        with pytest.raises(Crash):  # committed, and nothing published
            parts.commit(Mortal(store, fuse, False), Mortal(evidence, fuse, False), 0, "first")
        assert 0 in committed(store)
        fuse = [number]
        try:
            publish_all(Mortal(store, fuse, after), Mortal(evidence, fuse, after))
        except Crash:
            publish_all(store, evidence)
            assert published(store, evidence) == expected
            assert verify(f"{path}-r{number}-{after}", options) == []
        else:
            return
    raise AssertionError("publish_all never came to its end")


def left_by_dead_workers(path):
    """Stores in which shards 0 to 2 are committed and not published, and 1 has a superseded attempt too."""
    store, evidence = stores(path, {})
    create_run_record(store, parts.run_record(3))
    for shard in range(3):
        fuse = [5]
        with pytest.raises(Crash):
            parts.commit(Mortal(store, fuse, False), Mortal(evidence, fuse, False), shard, "first")
    for where in (store, evidence):
        where.write("attempts/000001-late/train/000001.tar", b"half")
    return store, evidence


def test_attempts_are_repaired_together(tmp_path):
    path, together = str(tmp_path / "corpus"), threading.Barrier(4, timeout=20)
    store, evidence = left_by_dead_workers(path)

    def wait_for_all(method, name):
        if method == "read":
            together.wait()  # never passed by one attempt alone

    assert publish_all(Counted(store, wait_for_all), evidence) == [0, 1, 2]
    assert verify(path) == []


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_while_several_attempts_are_repaired_is_mended_by_the_next_repair(tmp_path, after):
    crashes = 0
    for number in range(1, 100):
        path = str(tmp_path / f"corpus-{number}")
        store, evidence = left_by_dead_workers(path)
        fuse = [number]
        try:
            publish_all(Mortal(store, fuse, after), Mortal(evidence, fuse, after))
        except Crash:
            crashes += 1
        else:
            break
        publish_all(store, evidence)
        assert verify(path) == []
    assert crashes == 23  # two listings; four reads, nine copies, and two deletes for each of four attempts


def test_what_is_committed_is_known_from_names_and_counts_are_read_once(tmp_path):
    store, evidence = stores(str(tmp_path / "corpus"), {})
    for shard in (0, 1, 999_999, 1_000_000):  # by path the last would come third
        parts.commit(store, evidence, shard, "a")
    counted = Counted(store)
    assert committed_shards(counted) == [0, 1, 999_999, 1_000_000] == list(committed(store))
    assert counted.calls == [("list", "commits")]
    known = committed_counts(store)
    assert known == {shard: record.counts for shard, record in committed(store).items()}
    assert len({id(counts) for counts in known.values()}) == 1, "equal counts are one object"
    store.delete("commits/000000.json")
    parts.commit(store, evidence, 2, "a")
    assert sorted(committed_counts(counted, known)) == [1, 2, 999_999, 1_000_000], "storage says which are there"
    assert counted.read_under("commits") == ["commits/000002.json"]


def test_of_several_workers_on_one_shard_exactly_one_wins(place):
    path, options = place
    store, _ = stores(path, options)
    create_run_record(store, parts.run_record(1))
    barrier, results = threading.Barrier(4), []

    def work(name):
        own = stores(path, options)
        barrier.wait()
        results.append(parts.commit(*own, 0, name))

    threads = [threading.Thread(target=work, args=(f"worker{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.won for result in results) == 1
    assert len({result.record.attempt for result in results}) == 1
    assert verify(path, options) == []


def test_a_late_worker_changes_nothing(corpus):
    path, options = corpus
    store, evidence = stores(path, options)
    before = published(store, evidence)
    result = parts.commit(store, evidence, 1, "late")
    assert not result.won
    assert result.record.attempt == "a1"
    assert published(store, evidence) == before
    assert verify(path, options) == []


def test_a_create_whose_answer_is_lost_is_recognised_as_ours(place):
    path, options = place
    store, evidence = stores(path, options)
    create_run_record(store, parts.run_record(1))

    class Lossy:
        url = store.url

        def __getattr__(self, name):
            return getattr(store, name)

        def create(self, path, data):
            store.create(path, data)
            raise StoreError("the connection was reset")

    assert parts.commit(Lossy(), evidence, 0, "mine").won
    assert verify(path, options) == []


@pytest.fixture
def passed(monkeypatch):
    """Seconds slept, without their passing."""
    slept = [0.0]
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(slept.pop() + seconds))
    return slept


class Busy:
    """A store that answers no create with success in the first *seconds*, nor does one then, unless *lossy*."""

    def __init__(self, store, passed, seconds, lossy=False):
        self._store, self._passed, self._seconds, self._lossy, self.url = store, passed, seconds, lossy, store.url

    def __getattr__(self, name):
        return getattr(self._store, name)

    def create(self, path, data):
        if self._passed[0] < self._seconds:
            if self._lossy:
                self._store.create(path, data)
            raise StoreError("503 SlowDown")
        return self._store.create(path, data)


def test_ten_busy_seconds_cost_neither_a_commit_nor_the_record_of_a_failure(tmp_path, passed):
    store, evidence = stores(str(tmp_path / "corpus"), {})
    create_run_record(store, parts.run_record(1))
    assert parts.commit(Busy(store, passed, 10), evidence, 0, "mine").won
    assert 10 <= passed[0] <= 15
    assert verify(str(tmp_path / "corpus")) == []
    passed[0] = 0.0
    record_failure(Busy(store, passed, 10), FailureRecord(shard=1, kind="error", message="no"))
    assert [failure.message for failure in failures(store)] == ["no"]
    passed[0] = 0.0
    with pytest.raises(StoreError, match=r"failures/000001-\d+.json: could not be created: 503 SlowDown"):
        record_failure(Busy(store, passed, 3600), FailureRecord(shard=1, kind="error", message="no"))


def test_a_failure_whose_answer_is_lost_is_written_once_and_one_that_is_alike_again(tmp_path, passed):
    store, _ = stores(str(tmp_path / "corpus"), {})
    for number in (1, 2, 3):  # of the second and the third the number is taken
        record_failure(
            Busy(store, passed, 1, lossy=True), FailureRecord(shard=1, kind="pardoned", message="the run was stopped")
        )
        assert len(list(failures(store))) == number


def test_a_committed_shard_whose_files_are_gone_is_an_error(corpus):
    path, options = corpus
    store, evidence = stores(path, options)
    store.write("attempts/000001-a1/stray", b"")
    store.delete("train/000001.tar")
    with pytest.raises(CorpusError, match=r"train/000001\.tar: committed by attempt a1"):
        publish_all(store, evidence)


def test_failures_are_numbered_and_survive(place):
    path, options = place
    store, _ = stores(path, options)
    record_failure(store, FailureRecord(shard=3, kind="error", message="first"))
    record_failure(store, FailureRecord(shard=3, kind="blamed", message="second", sample_key="00000300001"))
    found = list(failures(open_store(path, options)))
    assert [(f.shard, f.kind, f.message, f.sample_key) for f in found] == [
        (3, "error", "first", None),
        (3, "blamed", "second", "00000300001"),
    ]


def test_a_tar_that_could_never_be_published_is_refused_before_it_is_committed(s3, monkeypatch):
    assert open_store("s3://corpora/any", s3).copy_limit == 5 * 1024**3
    assert open_store("gs://corpora/any", {"skip_signature": "true"}).copy_limit is None
    monkeypatch.setattr(remote, "S3_COPY_LIMIT", 9_000)
    path = f"s3://corpora/{uuid.uuid4().hex}"
    store, evidence = stores(path, s3)
    create_run_record(store, parts.run_record(1))
    with pytest.raises(StoreError, match=r"train/000000.tar: would have [\d,]+ bytes, and this store copies 9,000"):
        parts.commit(store, evidence, 0, "mine")
    assert [entry.path for entry in store.list()] == ["run.yaml"]


def test_a_repair_removes_what_a_dead_writer_left_half_written(tmp_path):
    store, evidence = stores(str(tmp_path / "corpus"), {})
    create_run_record(store, parts.run_record(1))
    parts.commit(store, evidence, 0, "first")
    left = [Path(where.url) / ".tmp" / f"{socket.gethostname()}-{2**22 - 1}-00" for where in (store, evidence)]
    for path in left:
        path.write_bytes(b"half a tar")
    publish_all(store, evidence)
    assert not any(path.exists() for path in left)
    assert verify(str(tmp_path / "corpus")) == []
