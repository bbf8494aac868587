"""What finish keeps for the loader: the same as is made of manifests, taken where it is of these commits, else not."""

import hashlib
import json
import shutil

import pytest

from pipeline import Corpus
from pipeline.corpus import finish, layout, open_store, verify
from pipeline.corpus.loader import index

FILES = ["blocks.bin", "column-caption.arrow", "rows.bin", "shards.bin"]


@pytest.fixture
def reads(monkeypatch):
    """The manifests that the loader has read."""
    read = []
    real = index.sound_manifest
    monkeypatch.setattr(index, "sound_manifest", lambda store, record: read.append(record.shard) or real(store, record))
    return read


def held(corpus, home):
    """All that an index opened anew says."""
    shutil.rmtree(home, ignore_errors=True)
    path, options = corpus
    opened = Corpus(path, options=options, partial=True)
    index = opened.index
    samples = [(sample["image"].tolist(), sample["caption"]) for sample in opened.read(range(len(opened)))]
    return [array.tobytes() for array in (index.rows, index.blocks, index.shards)], opened.fingerprint, samples


def test_a_finished_corpus_is_opened_as_one_that_is_not_and_no_manifest_is_read(corpus, reads, home):
    before = held(corpus, home)
    assert sorted(reads) == [0, 1, 2]
    reads.clear()
    written = finish(*corpus).written
    store = open_store(*corpus)
    assert f"{store.url}/index/rows.json" in written
    assert [entry.path for entry in store.list("index/rows")] == [f"index/rows/{name}" for name in FILES]
    assert held(corpus, home) == before
    assert reads == []
    assert verify(*corpus) == []


def test_it_is_the_same_bytes_each_time(corpus):
    def derived():
        return {entry.path: store.read(entry.path) for entry in store.list("index")}

    store = open_store(*corpus)
    finish(*corpus)
    first = derived()
    finish(*corpus)
    assert derived() == first
    assert "index/rows.json" in first


def test_other_columns_and_predicates_are_read_from_manifests(sealed, reads):
    path, _ = sealed
    finish(path)
    assert Corpus(path, columns=["caption", "source"])[1] == {"caption": "number 1", "source": "row 1"}
    assert sorted(reads) == [0, 1, 2]
    assert [s["caption"] for s in Corpus(path, where="seed < 2").read([0, 1, 2])] == [
        "number 0",
        "number 1",
        "number 0",
    ]
    assert sorted(reads) == [0, 0, 1, 1, 2, 2]


def without_last(store):
    for name in (layout.commit(2), layout.tar(2), layout.manifest(2)):
        store.delete(name)


STALE = {
    "of other commits": without_last,
    "none": lambda s: s.delete("index/rows.json"),
    "no note": lambda s: s.write("index/rows.json", b"{"),
    "a note of something else": lambda s: s.write("index/rows.json", b"[]"),
    "a file is missing": lambda s: s.delete("index/rows/rows.bin"),
    "a file is torn": lambda s: s.write("index/rows/rows.bin", s.read("index/rows/rows.bin")[:-16]),
    "a file is longer": lambda s: s.write("index/rows/shards.bin", b"x" + s.read("index/rows/shards.bin")),
    "captions are others": lambda s: s.write(
        "index/rows/column-caption.arrow", s.read("index/rows/column-caption.arrow").replace(b"number 1", b"number 7")
    ),
}


@pytest.mark.parametrize("kind", STALE)
def test_what_is_not_of_these_commits_is_not_taken(kind, sealed, reads, home):
    path, store = sealed
    finish(path)
    STALE[kind](store)
    found = held((path, {}), home)
    assert sorted(reads) == ([0, 1] if kind == "of other commits" else [0, 1, 2])
    for name in [entry.path for entry in store.list("index")]:
        store.delete(name)
    assert held((path, {}), home) == found
    assert [caption for _, caption in found[2]] == [f"number {i}" for i in range(4)] * (len(found[2]) // 4)


FAULTS = {
    "a missing file": (lambda s: s.delete("index/rows/blocks.bin"), "index/rows/blocks.bin: does not agree"),
    "a changed file": (lambda s: s.write("index/rows/rows.bin", b"x"), "index/rows/rows.bin: does not agree"),
    "a file with more behind it": (
        lambda s: s.write("index/rows/rows.bin", s.read("index/rows/rows.bin") + b"x"),
        "index/rows/rows.bin: does not agree",
    ),
    "a note of other commits": (
        lambda s: s.write("index/rows.json", s.read("index/rows.json").replace(b'nt": "', b'nt": "0')),
        "index/rows.json: does not agree",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_verify_finds_what_does_not_agree_and_finish_mends_it(kind, sealed):
    path, store = sealed
    finish(path)
    fault, line = FAULTS[kind]
    fault(store)
    assert [problem.partition(" with")[0] for problem in verify(path)] == [line]
    finish(path)
    assert verify(path) == []


def test_verify_finds_a_note_that_is_true_of_wrong_files(sealed):
    """As a finish with a fault would have written both."""
    path, store = sealed
    finish(path)
    wrong = store.read("index/rows/column-caption.arrow").replace(b"number 1", b"number 7")
    store.write("index/rows/column-caption.arrow", wrong)
    note = json.loads(store.read("index/rows.json"))
    note["files"]["column-caption.arrow"]["sha256"] = hashlib.sha256(wrong).hexdigest()
    store.write("index/rows.json", json.dumps(note).encode())
    assert [line.partition(":")[0] for line in verify(path)] == ["index/rows/column-caption.arrow"]


def test_a_corpus_that_an_older_version_finished_is_sound(sealed):
    path, store = sealed
    finish(path)
    store.delete("index/rows.json")
    store.delete_tree("index/rows")
    assert verify(path) == []
