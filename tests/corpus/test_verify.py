"""verify finds each kind of damage, names it, and finds nothing in a sound corpus."""

import pytest

from pipeline.corpus import finish, open_store, purge_evidence, status, verify
from pipeline.errors import CorpusError


def flip(store, path, position=700):
    data = bytearray(store.read(path))
    data[position] ^= 1
    store.write(path, bytes(data))


DAMAGE = {
    "a bit of a tar": (lambda s: flip(s, "train/000001.tar"), "train/000001.tar: sha256 is not the one committed"),
    "a bit of a manifest": (lambda s: flip(s, "manifests/000000.parquet", 40), "manifests/000000.parquet: sha256"),
    "a missing tar": (lambda s: s.delete("train/000002.tar"), "train/000002.tar: missing"),
    "a short tar": (
        lambda s: s.write("train/000000.tar", s.read("train/000000.tar")[:-512]),
        "bytes, was committed with",
    ),
    "a missing commit": (lambda s: s.delete("commits/000001.json"), "shard 000001: planned, but not committed"),
    "a stray tar": (lambda s: s.copy("train/000000.tar", "train/000009.tar"), "train/000009.tar: no commit names it"),
    "a left attempt": (lambda s: s.write("attempts/000001-x/train/000001.tar", b"x"), "left over"),
    "a bad index": (lambda s: s.write("train/000000.idx", b"v1.2 0\n"), "train/000000.idx: does not agree"),
    "a bad wids index": (lambda s: s.write("wids-train.json", b"{}"), "wids-train.json: does not agree"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(corpus, kind):
    path, options = corpus
    finish(path, options)
    assert verify(path, options) == []
    damage, message = DAMAGE[kind]
    damage(open_store(path, options))
    problems = verify(path, options)
    assert any(message in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_path_without_a_corpus_is_one_line(tmp_path):
    for command in (verify, status, finish, purge_evidence):
        with pytest.raises(CorpusError, match=r"no corpus is here \(run\.yaml is missing\)"):
            command(str(tmp_path / "nothing"), {})


def test_status_counts_from_storage_alone(corpus):
    path, options = corpus
    report = status(path, options)
    assert report.shards == 3
    assert dict(report.summary.statuses) == {"ok": 12, "quarantined": 3, "failed": 3}
    assert report.summary.found["quarantined"]["cat"] == 3
    assert "12 kept (66.7%)" in report.text()
    assert "failed, nan: 3" in report.text()
    open_store(path, options).delete("commits/000002.json")
    assert "2 of 3 shards" in status(path, options).text()


def test_purged_evidence_is_no_fault_and_the_record_stays(corpus):
    path, options = corpus
    finish(path, options)
    assert purge_evidence(path, options) == 4  # three tars and the page
    assert verify(path, options) == []
    assert status(path, options).summary.found["quarantined"]["cat"] == 3


def test_finish_can_be_repeated_and_gives_the_same(corpus):
    path, options = corpus
    store = open_store(path, options)
    finish(path, options)
    first = {entry.path: store.read(entry.path) for entry in store.list()}
    finish(path, options)
    assert {entry.path: store.read(entry.path) for entry in store.list()} == first
    card = store.read("README.md").decode()
    assert "train/*.tar" in card
    assert "0.00% (0.00% to 24.25%)" in card  # 0 of 12 kept, Wilson


def test_the_share_in_pictures_drawn_counts_those_that_a_further_seed_replaced():
    from pipeline.corpus.summary import Summary

    summary = Summary()
    for _ in range(10):
        summary.add_attempt("cat", {"cat": 0.9})
        summary.add_attempt("", {"cat": 0.1})
        summary.add("ok", "", {"cat": 0.1})
    assert summary.rate("cat")[0] == 0.5
    assert summary.residual("cat")[0] == 0.0
