"""Compiled code in a corpus: who pins first decides, each environment has its own, and what is damaged is named."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.corpus import finish, layout, open_store
from pipeline.corpus.compiled import PinnedCode, faults, remove_unnamed, unnamed
from pipeline.corpus.verify import inspect
from pipeline.errors import ConfigError, CorpusError
from tests.interrupted import Interrupted

HERE, THERE = {"torch": "2.11", "gpu": "H100"}, {"torch": "2.12", "gpu": "H100"}


@pytest.fixture
def store(tmp_path: Path):
    return open_store(str(tmp_path / "corpus"))


def code(store, environment=HERE, *, identity: str = "a" * 64, accept: bool = False) -> PinnedCode:
    return PinnedCode(store, identity, environment, accept_environment=accept)


def test_whoever_pins_first_decides(store):
    first, second = code(store), code(store)
    assert first.find("plain-2x4") is None
    assert first.add("plain-2x4", b"first")
    assert not second.add("plain-2x4", b"second"), "another has pinned"
    assert second.add("plain-2x4", b"first"), "the same bytes stand"
    assert first.find("plain-2x4") == second.find("plain-2x4") == b"first"
    assert [entry.path for entry in store.list("compiled") if entry.path.endswith(".bin")] == [
        "compiled/a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e.bin"
    ], "of what was not pinned nothing is left"
    assert not list(faults(store))


def test_each_kind_environment_and_corpus_has_its_own(store):
    assert code(store).add("plain-2x4", b"here")
    assert code(store).find("switching-2x4") is None
    assert code(store, THERE).find("plain-2x4") is None
    assert code(store, identity="b" * 64).find("plain-2x4") is None
    assert code(store, THERE).add("plain-2x4", b"there")
    assert code(store).find("plain-2x4") == b"here"


def test_what_does_not_load_is_refused_or_set_aside_and_stays(store):
    assert code(store).add("plain-2x4", b"old")
    with pytest.raises(ConfigError, match=r"compiled/aaaaaaaa-\w{8}-plain-2x4.json: .* go on here with --accept-env"):
        code(store).set_aside("plain-2x4")
    accepting = code(store, accept=True)
    accepting.set_aside("plain-2x4")
    assert accepting.find("plain-2x4") is None
    assert accepting.add("plain-2x4", b"new")
    assert accepting.find("plain-2x4") == b"new"
    assert code(store).find("plain-2x4") == b"old"


def test_damaged_code_is_neither_run_nor_passed_over(store):
    assert code(store).add("plain-2x4", b"code")
    (file,) = (entry.path for entry in store.list("compiled") if entry.path.endswith(".bin"))
    (record,) = (entry.path for entry in store.list("compiled") if entry.path.endswith(".json"))
    store.write(file, b"other code")
    fault = f"{file}: sha256 is not that of its record, the compiled code of plain-2x4"
    assert list(faults(store)) == [fault]
    with pytest.raises(CorpusError, match="sha256 is not that of its record"):
        code(store).find("plain-2x4")
    store.delete(file)
    assert list(faults(store)) == [f"{file}: missing, the compiled code of plain-2x4"]
    with pytest.raises(CorpusError, match=f"missing, .*delete {record}: the code is compiled anew"):
        code(store).find("plain-2x4")
    store.write(record, b"{}")
    (line,) = faults(store)
    assert line.startswith(f"{record}: not a record of compiled code")
    assert f"; where its bytes cannot be had back, delete {record}: the code is compiled anew, and pictures" in line


DIES = f"""
import os, signal, sys
from pipeline.corpus.compiled import PinnedCode
from pipeline.corpus.local import LocalStore

class Dying(LocalStore):
    def create(self, path, data):
        os.kill(os.getpid(), signal.SIGKILL)

PinnedCode(Dying(sys.argv[1]), "a" * 64, {HERE}, accept_environment=False).add("plain-2x4", b"died over it")
"""


def die_over_it(folder: str) -> str:
    """Have a process write its code and be killed before the record of it; return where the code lies."""
    process = subprocess.run([sys.executable, "-c", DIES, folder])
    assert process.returncode == -signal.SIGKILL
    (left,) = unnamed(open_store(folder))
    return left


@pytest.mark.slow
def test_code_that_a_worker_died_over_is_told_passed_over_and_removed(sealed):
    path, store = sealed
    finish(path)
    assert inspect(path).problems == []
    left = die_over_it(path)
    assert code(store).find("plain-2x4") is None
    assert code(store).add("plain-2x4", b"of the next")
    assert code(store).find("plain-2x4") == b"of the next"
    found = inspect(path)
    assert found.problems == [
        f"{left}: code that no record names, of a worker that died or is still compiling; `lacuna finish` removes it"
    ]
    assert found.remedies(path) == [f"to derive indexes and reports anew, and clear up: lacuna finish {path}"]
    finish(path)
    assert not store.exists(left)
    assert inspect(path).problems == []
    assert code(store).find("plain-2x4") == b"of the next"


@pytest.mark.slow
def test_the_same_code_is_pinned_where_a_worker_died_over_it(tmp_path: Path):
    left = die_over_it(str(tmp_path))
    store = open_store(str(tmp_path))
    assert code(store).add("plain-2x4", b"died over it")
    assert unnamed(store) == []
    remove_unnamed(store)
    assert store.read(left) == b"died over it"


def test_where_a_record_cannot_be_read_no_code_is_taken_for_unnamed(store):
    assert code(store).add("plain-2x4", b"code")
    (record,) = (entry.path for entry in store.list("compiled") if entry.path.endswith(".json"))
    store.write(record, b"{}")
    assert unnamed(store) == []
    remove_unnamed(store)
    assert [entry.path for entry in store.list("compiled") if entry.path.endswith(".bin")]


def test_code_that_is_removed_before_its_record_names_it_is_written_again(store):
    clearing = Interrupted(store.root, "create", lambda: remove_unnamed(store))
    assert code(clearing).add("plain-2x4", b"code")
    assert not clearing.others, "it was removed"
    assert code(store).find("plain-2x4") == b"code"


def test_code_that_a_record_names_by_the_time_it_is_removed_is_put_back(store):
    store.write(layout.compiled("b5d4045c3f466fa91fe2cc6abe79232a1a57cdf104f7a26e716e0a1e2789df78.bin"), b"ABC")
    remove_unnamed(Interrupted(store.root, "delete", lambda: code(store).add("plain-2x4", b"ABC")))
    assert code(store).find("plain-2x4") == b"ABC"
    assert not list(faults(store))


def test_who_is_late_leaves_what_another_environment_has_pinned(store):
    assert code(store, THERE).add("plain-2x4", b"the same")
    assert code(store).add("plain-2x4", b"first")
    assert not code(store).add("plain-2x4", b"the same")
    assert code(store, THERE).find("plain-2x4") == b"the same"
