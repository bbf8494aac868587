"""A purge deletes the evidence of its own corpus, all of it, and nothing else, however the corpus is named."""

import json
import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.corpus import (
    Output,
    claim_evidence,
    evidence_url,
    open_store,
    purge_evidence,
    purged_on,
    require_run_record,
    verify,
)
from pipeline.corpus.loader import open_corpus
from pipeline.corpus.purge import check_evidence, purge
from pipeline.errors import CorpusError, StoreError
from tests.corpus import conftest as parts
from tests.corpus.test_commit import Crash, Mortal
from tests.test_paths import MEANINGFUL

OURS, THEIRS = "d" * 64, "e" * 64  # the identity of the tests' corpus, and another


def names(path: str, options: dict[str, str]) -> set[str]:
    return {entry.path for entry in open_store(path, options).list()}


def note(path: str, options: dict[str, str]) -> dict[str, str]:
    return json.loads(open_store(evidence_url(path), options).read("evidence.json"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize("text", [text for text in MEANINGFUL if text in "#?% +\\é" or text == "%23"])
def test_a_corpus_of_any_name_is_sound_and_keeps_all_but_its_evidence(kind: str, text: str, tmp_path, request) -> None:
    root, options = str(tmp_path), {}
    if kind == "s3":
        root, options = f"s3://corpora/{uuid.uuid4().hex}", request.getfixturevalue("s3")
    for name in (f"run{text}1", "run"):
        parts.make_corpus(f"{root}/{name}", options)
    before = {path: names(f"{root}/{path}", options) for path in ("run", "run.evidence", f"run{text}1")}
    assert verify(f"{root}/run{text}1", options) == []
    assert sum(1 for _ in open_corpus(f"{root}/run{text}1", decode=None, options=options)) == 12
    assert purge_evidence(f"{root}/run{text}1", options) == 3
    assert verify(f"{root}/run{text}1", options) == []
    assert {path: names(f"{root}/{path}", options) for path in before} == before
    assert names(f"{root}/run{text}1.evidence", options) == {"evidence.json"}


def test_a_purge_is_noted_and_a_second_one_says_so(corpus, capsys) -> None:
    path, options = corpus
    storage = [word for item in options.items() for word in ("--storage", "=".join(item))]
    assert main(["purge", path, *storage]) == 0
    assert capsys.readouterr().out == f"3 files of evidence deleted below {path}.evidence\n"
    assert note(path, options)["identity"] == OURS
    assert note(path, options)["path"] == path
    date = note(path, options)["purged"]
    assert main(["purge", path, *storage]) == 0
    assert capsys.readouterr().out == f"{path}.evidence: was purged on {date}\n"
    assert date == purged_on(path, options) != ""


@pytest.mark.parametrize("written", [".", "./", "{path}/.", "../corpus", "{link}", "{link}/.", "file://{path}/"])
def test_a_purge_finds_the_evidence_however_its_corpus_is_written(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    path, link = str(tmp_path / "corpus"), tmp_path / "links" / "link"
    parts.make_corpus(path, {})
    link.parent.mkdir()
    link.symlink_to(path)
    monkeypatch.chdir(path)
    assert main(["purge", written.format(path=path, link=link)]) == 0
    assert capsys.readouterr().out == f"3 files of evidence deleted below {path}.evidence\n"
    assert names(f"{path}.evidence", {}) == {"evidence.json"}
    assert os.listdir(link.parent) == ["link"]


def test_a_purge_that_finds_nothing_of_a_corpus_that_had_some_says_where_it_looked(corpus, capsys) -> None:
    path, options = corpus
    open_store(f"{path}.evidence", options).delete_tree("")
    with pytest.raises(CorpusError, match=r": no evidence is here.*\(3 quarantined pictures\)") as caught:
        purge_evidence(path, options)
    assert str(caught.value).startswith(f"{path}.evidence: ")
    assert names(f"{path}.evidence", options) == set()


def test_a_corpus_that_had_no_evidence_has_none_to_purge(tmp_path: Path, capsys) -> None:
    path = str(tmp_path / "corpus")
    parts.create_run_record(open_store(path), parts.run_record(3))
    assert main(["purge", path]) == 0
    assert capsys.readouterr().out == f"{path}.evidence: there was no evidence to delete\n"


def test_evidence_of_another_corpus_is_left_alone(corpus, capsys) -> None:
    path, options = corpus
    claim_evidence(Output.open(path, options), OURS)
    evidence = open_store(f"{path}.evidence", options)
    evidence.write("evidence.json", json.dumps({"identity": THEIRS, "path": "/elsewhere"}).encode())
    before = names(evidence.url, options)
    with pytest.raises(CorpusError, match=r"is evidence of another corpus \(identity e{16}, made at /elsewhere\), not"):
        purge_evidence(path, options)
    with pytest.raises(CorpusError, match="holds evidence of another corpus"):
        check_evidence(Output.open(path, options), OURS)
    evidence.write("evidence.json", b"{")
    with pytest.raises(CorpusError, match=r"evidence\.json: does not say whose evidence this is"):
        purge_evidence(path, options)
    assert names(evidence.url, options) == before


def test_only_a_corpus_older_than_the_note_has_evidence_without_one(corpus) -> None:
    path, options = corpus
    store, evidence = open_store(path, options), open_store(f"{path}.evidence", options)
    record = require_run_record(store)
    store.write("run.yaml", replace(record, lacuna={"version": "9"}).dumps())
    before = names(evidence.url, options)
    with pytest.raises(CorpusError, match=f"{path}.evidence: nothing says that this is evidence of {path}, whose own"):
        purge_evidence(path, options)
    assert names(evidence.url, options) == before
    claim_evidence(Output.open(path, options), OURS)  # as a run does
    assert purge_evidence(path, options) == 3


@pytest.mark.parametrize("name", ["run.yaml", "commits/000000.json", "within/run.yaml", "within/commits/000000.json"])
def test_a_corpus_is_never_evidence(name: str, corpus) -> None:
    path, options = corpus
    evidence = open_store(f"{path}.evidence", options)
    evidence.write(name, b"")
    before = names(evidence.url, options)
    with pytest.raises(CorpusError, match=rf"a corpus lies there \({name}\), so it is no evidence"):
        purge_evidence(path, options)
    assert names(evidence.url, options) == before
    if not name.startswith("within"):
        with pytest.raises(CorpusError, match=r"is a corpus, so the evidence of .* cannot lie there"):
            check_evidence(Output.open(path, options), OURS)


def test_evidence_is_no_place_for_a_corpus(corpus) -> None:
    path, options = corpus
    with pytest.raises(CorpusError, match=f"{path}.evidence: is the evidence of the corpus {path};"):
        check_evidence(Output.open(f"{path}.evidence", options), THEIRS)
    claim_evidence(Output.open(path, options), OURS)
    open_store(path, options).delete("run.yaml")
    with pytest.raises(CorpusError, match="is the evidence of"):
        check_evidence(Output.open(f"{path}.evidence", options), THEIRS)


def test_a_run_takes_over_what_says_nothing_and_what_holds_nothing(place) -> None:
    path, options = place
    evidence = open_store(f"{path}.evidence", options)
    evidence.write("preview.html", b"as preview leaves it")
    check_evidence(Output.open(path, options), OURS)
    assert names(evidence.url, options) == {"preview.html"}  # a check claims nothing
    claim_evidence(Output.open(path, options), OURS)
    assert note(path, options) == {"identity": OURS, "path": path, "purge_begun": "", "purged": ""}
    with pytest.raises(CorpusError, match="holds evidence of another corpus"):
        claim_evidence(Output.open(path, options), THEIRS)
    evidence.delete("preview.html")
    claim_evidence(Output.open(path, options), THEIRS)
    assert note(path, options)["identity"] == THEIRS


def test_evidence_moves_with_its_corpus(tmp_path: Path) -> None:
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    parts.make_corpus(old, {})
    claim_evidence(Output.open(old), OURS)
    for ending in ("", ".evidence"):
        shutil.move(old + ending, new + ending)
    assert purge_evidence(new) == 3
    claim_evidence(Output.open(new), OURS)
    assert note(new, {})["path"] == new
    assert note(new, {})["purged"] == purged_on(new) != ""  # a resume forgets no purge


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_purge_that_was_killed_is_ended_by_the_next(after: bool, place) -> None:
    path, options = place
    crashes = 0
    for number in range(1, 100):
        corpus = f"{path}-{number}"
        store, evidence = open_store(corpus, options), open_store(evidence_url(corpus), options)
        parts.create_run_record(store, parts.run_record(1))
        parts.commit(store, evidence, 0, "a0")
        fuse = [number]
        try:
            purge(Mortal(store, fuse, after), Mortal(evidence, fuse, after))
        except Crash:
            crashes += 1
        else:
            break
        left = len(names(evidence.url, options) - {"evidence.json"})
        assert purge(store, evidence) == left
        assert purged_on(corpus, options)
        assert names(evidence.url, options) == {"evidence.json"}
    assert crashes >= 7  # a read of the run, list, read of the note, write, delete_tree, list, write


def test_evidence_that_comes_during_a_purge_is_told(corpus) -> None:
    path, options = corpus

    class Late:
        """The evidence while a run is at work: a tar comes with the deletion."""

        def __init__(self, store):
            self._store, self.url = store, store.url

        def __getattr__(self, name):
            return getattr(self._store, name)

        def delete_tree(self, *args):
            self._store.delete_tree(*args)
            self._store.write("quarantine/000009.tar", b"late")

    evidence = open_store(f"{path}.evidence", options)
    with pytest.raises(CorpusError, match=r"1 files have come while it was purged, such as quarantine/000009\.tar"):
        purge(open_store(path, options), Late(evidence))
    assert purged_on(path, options) == ""
    assert purge_evidence(path, options) == 1


def test_half_written_evidence_goes_too(tmp_path: Path) -> None:
    path = str(tmp_path / "corpus")
    parts.make_corpus(path, {})
    half = tmp_path / "corpus.evidence" / ".tmp" / "host-1-00"
    half.write_bytes(b"half a picture")
    purge_evidence(path)
    assert not half.exists()


def test_what_lies_behind_a_link_is_not_said_to_be_deleted(tmp_path: Path) -> None:
    path = str(tmp_path / "corpus")
    parts.make_corpus(path, {})
    shutil.move(f"{path}.evidence/quarantine", tmp_path / "big")
    (tmp_path / "corpus.evidence" / "quarantine").symlink_to(tmp_path / "big")
    with pytest.raises(StoreError, match=f"quarantine: is a link, .*; delete {tmp_path}/big and it"):
        purge_evidence(path)
    assert len(os.listdir(tmp_path / "big")) == 3


def test_evidence_that_is_a_link_itself_is_purged(tmp_path: Path) -> None:
    path = str(tmp_path / "corpus")
    parts.make_corpus(path, {})
    shutil.move(f"{path}.evidence", tmp_path / "big")
    (tmp_path / "corpus.evidence").symlink_to(tmp_path / "big")
    assert purge_evidence(path) == 3
    assert names(str(tmp_path / "big"), {}) == {"evidence.json"}
