"""Compiled code in a corpus: who pins first decides, each environment has its own, and what is damaged is named."""

from pathlib import Path

import pytest

from pipeline.corpus import open_store
from pipeline.corpus.compiled import PinnedCode, faults
from pipeline.errors import ConfigError, CorpusError

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
