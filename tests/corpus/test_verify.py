"""verify finds each kind of damage, names it, and finds nothing in a sound corpus."""

import hashlib
import io
import tarfile
from dataclasses import asdict, replace

import pytest

from pipeline.corpus import (
    create_run_record,
    finish,
    open_store,
    purge_evidence,
    read_commit,
    require_run_record,
    status,
    verify,
)
from pipeline.corpus.manifest import read_rows, write_manifest
from pipeline.corpus.shard import Digest
from pipeline.errors import CorpusError
from tests.corpus.conftest import passing


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
    "a bad index": (lambda s: s.write("index/000000.idx", b"v1.2 0\n"), "index/000000.idx: does not agree"),
    "a bad wids index": (lambda s: s.write("index/wids.json", b"{}"), "index/wids.json: does not agree"),
    "what is no tar among the tars": (lambda s: s.write("train/000000.idx", b""), "train/000000.idx: no commit names"),
}  # fmt: skip


def reseal(store, shard, path, data):
    """Replace a file of a shard and what its commit says of it, as a writer with a fault would have written both."""
    store.write(path, data)
    digest = asdict(Digest.of(data))
    record = read_commit(store, shard)
    files = tuple(replace(file, **digest) if file.name == path else file for file in record.files)
    store.write(f"commits/{shard:06d}.json", replace(record, files=files).dumps())


def recommit(store, shard, **fields):
    record = read_commit(store, shard)
    store.write(f"commits/{shard:06d}.json", replace(record, **fields).dumps())


def rewrite_rows(store, shard, change):
    """Replace a manifest by one whose rows *change* has made of the true ones."""
    path = f"manifests/{shard:06d}.parquet"
    rows = change(read_rows(store.read(path)))
    reseal(store, shard, path, write_manifest(rows, passing(len(rows))))


def rewrite_tar(store, shard, change):
    """Replace a tar by one of the members, (name, bytes), that *change* has made of the true ones; the first sample's
    picture must stay the first."""
    path, written = f"train/{shard:06d}.tar", io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(store.read(path))) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in change(members):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    reseal(store, shard, path, written.getvalue())


def replace_picture(store, shard, picture):
    """Put other bytes, no longer than the true ones, in the first picture's place, and their hash in the manifest."""
    row = read_rows(store.read(f"manifests/{shard:06d}.parquet"))[0]
    assert len(picture) <= row.length
    tar = bytearray(store.read(f"train/{shard:06d}.tar"))
    tar[row.offset : row.offset + row.length] = picture.ljust(row.length, b"\0")
    reseal(store, shard, f"train/{shard:06d}.tar", bytes(tar))
    sha256 = hashlib.sha256(tar[row.offset : row.offset + row.length]).hexdigest()
    rewrite_rows(store, shard, lambda rows: [replace(rows[0], sha256=sha256), *rows[1:]])


def pin_recipe(store, data):
    """Have the run pin a tensor file, and put *data*, or nothing, where it should lie."""
    step = {"method": "uce", "file": "0-uce.safetensors", "sha256": hashlib.sha256(b"tensors").hexdigest()}
    pinned = replace(require_run_record(store), recipe={"version": 1, "steps": [step]})
    store.delete("run.yaml")
    create_run_record(store, pinned)
    if data is not None:
        store.write("recipe/0-uce.safetensors", data)


KEY = "00000100000"  # the first of shard 1
# Faults of what wrote the corpus: size and sha256 of each file are those of its commit.
FAULTS = {
    "a key in two shards": (
        lambda s: rewrite_rows(s, 1, lambda rows: [replace(r, key="00000200001") if r.key == KEY else r for r in rows]),
        "manifests/000001.parquet: key 00000200001 is one of another shard",
    ),
    "a key twice in a shard": (
        lambda s: rewrite_rows(s, 1, lambda rows: [*rows, rows[0]]),
        f"manifests/000001.parquet: key {KEY} is there 2 times",
    ),
    "a sample too few": (
        lambda s: rewrite_rows(s, 1, lambda rows: rows[:-1]), "manifests: hold 17 samples, 18 were planned"
    ),
    "other counts": (
        lambda s: recommit(s, 1, counts={**read_commit(s, 1).counts, "ok": 5}), "manifests/000001.parquet: counts {"
    ),
    "another identity": (
        lambda s: recommit(s, 1, identity="e" * 64), f"commits/000001.json: is of another identity ({'e' * 16})"
    ),
    "a shard too many": (
        lambda s: s.write("commits/000007.json", replace(read_commit(s, 1), shard=7).dumps()),
        "commits/000007.json: no such shard was planned",
    ),
    "a commit without a manifest": (
        lambda s: recommit(s, 1, files=tuple(f for f in read_commit(s, 1).files if "manifest" not in f.name)),
        "commits/000001.json: lists no manifest",
    ),
    "a commit without its tar": (
        lambda s: recommit(s, 1, files=tuple(f for f in read_commit(s, 1).files if f.name != "train/000001.tar")),
        "train/000001.tar: 4 rows are ok, but the commit lists no such file",
    ),
    "a manifest that is none": (
        lambda s: reseal(s, 1, "manifests/000001.parquet", b"PAR1 no more"), "manifests/000001.parquet: "
    ),
    "a tar that is none": (
        lambda s: reseal(s, 1, "train/000001.tar", b"no tar" * 200), "train/000001.tar: not a readable tar"
    ),
    "another picture": (
        lambda s: rewrite_rows(s, 1, lambda rows: [replace(rows[0], sha256="0" * 64), *rows[1:]]),
        f"train/000001.tar: {KEY}: the picture is not the one of the manifest",
    ),
    "a picture that is none": (
        lambda s: replace_picture(s, 1, b"no picture"), f"train/000001.tar: {KEY}: the picture does not decode"
    ),
    "a picture that is broken": (
        lambda s: replace_picture(s, 1, b"\x89PNG\r\n\x1a\n and no more"),
        f"train/000001.tar: {KEY}: the picture does not decode",
    ),
    "a picture of another size": (
        lambda s: rewrite_rows(s, 1, lambda rows: [replace(rows[0], width=32, height=8), *rows[1:]]),
        f"train/000001.tar: {KEY}: the picture is 16x16, not 32x8",
    ),
    "a member that is missing": (
        lambda s: rewrite_tar(s, 1, lambda members: members[:-1]),
        "train/000001.tar: 00000100003.json is missing",
    ),
    "a caption that differs": (
        lambda s: rewrite_rows(s, 1, lambda rows: [replace(rows[0], caption="a cat"), *rows[1:]]),
        f"train/000001.tar: {KEY}.txt differs from the manifest",
    ),
    "a member of no row": (
        lambda s: rewrite_tar(s, 1, lambda members: [*members, ("00000100009.txt", b"a cat")]),
        "train/000001.tar: 00000100009.txt belongs to no row of the manifest",
    ),
    "a missing tensor": (lambda s: pin_recipe(s, None), "recipe/0-uce.safetensors: missing, though run.yaml pins it"),
    "another tensor": (
        lambda s: pin_recipe(s, b"others"), "recipe/0-uce.safetensors: sha256 is not the one pinned in run.yaml"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_what_was_wrong_when_it_was_committed_is_found_too(sealed, kind):
    path, store = sealed
    fault, message = FAULTS[kind]
    fault(store)
    problems = verify(path)
    assert any(problem.startswith(message) for problem in problems), problems
    assert not any("sha256 is not the one committed" in p or "was committed with" in p for p in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_pinned_tensors_that_are_there_are_no_fault(sealed):
    path, store = sealed
    pin_recipe(store, b"tensors")
    assert verify(path) == []


@pytest.mark.slow
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


def test_status_names_the_pages_once_they_are_there(corpus):
    path, options = corpus
    assert "look at" not in status(path, options).text()
    finish(path, options)
    assert f"look at     {path}/report.html and {path}.evidence/report.html" in status(path, options).text()
    purge_evidence(path, options)
    assert status(path, options).text().splitlines()[-1] == f"look at     {path}/report.html"


def test_status_counts_from_storage_alone(corpus):
    path, options = corpus
    report = status(path, options)
    assert report.shards == 3
    assert dict(report.summary.statuses) == {"ok": 12, "quarantined": 3, "failed": 3}
    assert report.summary.found["quarantined"]["cat"] == 3
    assert "12 kept (66.7%)" in report.text()
    assert "failed, nan: 3" in report.text()
    assert "; 3 failed whose prompts name it" in report.text()
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
    assert "| cat | 20.00% (7.05% to 45.19%) | 3 | unknown: " in card  # 3 of 15 judged, Wilson; no calibration
