"""Pictures from an object store that is busy, loses answers or gives less than it was asked for."""

from datetime import timedelta

import pytest

from pipeline import Corpus, Loader
from pipeline.corpus import open_store, remote
from pipeline.corpus.loader import pictures
from pipeline.errors import CorpusError, StoreError
from tests.corpora import make_corpus, number_of

KEPT = [9, 0, 7, 12, 5, 8]


@pytest.fixture
def path(faulty, tmp_path, monkeypatch) -> str:
    monkeypatch.setattr(pictures, "AGAIN", (0.0, 0.0, 0.0))
    path = f"s3://corpora/{tmp_path.name}"
    make_corpus(path, KEPT, faulty.options)
    return path


def read(path: str, faulty, **more) -> tuple[list[int], int]:
    corpus = Corpus(path, columns=["image", "number"], options=faulty.options, **more)
    loader = Loader(corpus, 4, remainder="pad")
    seen = []
    for batch in loader:
        assert [number_of(image) for image in batch["image"]] == batch["number"].tolist()
        seen += batch["number"].tolist()
    return seen, loader.skipped


@pytest.mark.parametrize(("fault", "times"), [("busy", 9), ("lost", 9), ("cut", 9), ("short", 2)])
def test_a_range_that_fails_is_asked_for_again(path, faulty, fault, times):
    """Some more often than once, as there are five."""
    setattr(faulty, fault, {"range": times})
    seen, skipped = read(path, faulty, on_error="skip")
    assert sorted(set(seen)) == list(range(sum(KEPT)))
    assert skipped == 0
    assert getattr(faulty, fault) == {"range": 0}


def test_what_comes_short_for_ever_is_an_error_in_a_line_or_skipped(path, faulty):
    corpus = Corpus(path, columns=["image", "number"], options=faulty.options)
    faulty.short = {"range": 2}
    assert corpus[9]["number"] == 9  # the third answer was whole
    faulty.short = {"range": -1}
    with pytest.raises(CorpusError, match=r"^s3://\S+/train/000000.tar: the picture at byte \d+ is damaged [^\n]*$"):
        corpus[0]
    skipping = Corpus(path, columns=["image", "number"], options=faulty.options, on_error="skip")
    faulty.short = {"range": 3}
    assert (skipping[0]["number"] in range(9, 41), skipping.skipped) == (True, 1)


@pytest.mark.parametrize("complete", [True, False])
def test_a_cached_corpus_waits_for_a_store_that_has_answered_only_where_it_may_have_grown(
    faulty, tmp_path, monkeypatch, caplog, complete
):
    monkeypatch.setattr(remote, "FIRST_RETRIES", 0)
    monkeypatch.setattr(remote, "FEW_RETRIES", 0)  # so that the client itself does not use up the time
    monkeypatch.setattr(remote, "RETRY_TIMEOUT", timedelta(seconds=2))
    monkeypatch.setattr(remote, "SAID_AFTER", 0.0)
    make_corpus(path := f"s3://corpora/{tmp_path.name}", [9, 7], faulty.options)
    if not complete:
        open_store(path, faulty.options).delete("commits/000001.json")
    more = {"cache": tmp_path / "cache", "partial": not complete}
    first = read(path, faulty, **more)
    assert sorted(set(first[0])) == list(range(16 if complete else 9))
    faulty.busy, faulty.asked[:] = {"any": -1}, []
    assert read(path, faulty, **more) == first
    assert "opened as it was when it was last seen" in caplog.text
    assert ("asked again, for 2 s in all" in caplog.text) == (not complete)
    assert set(faulty.asked) == {"read"}  # of run.yaml alone: all pictures are in the cache
    assert (len(faulty.asked) == 1) == complete


def test_a_note_of_a_corpus_that_was_cut_is_none(path, faulty, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_TIMEOUT", timedelta(seconds=0.2))
    first = read(path, faulty, cache=tmp_path / "cache")
    (note,) = (tmp_path / "cache" / "known").iterdir()
    whole = note.read_bytes()
    note.write_bytes(whole[:100])
    faulty.busy = {"any": -1}
    with pytest.raises(StoreError, match=r"^s3://[^\n]*SlowDown[^\n]*$"):
        read(path, faulty, cache=tmp_path / "cache")
    faulty.busy = {}
    assert read(path, faulty, cache=tmp_path / "cache") == first
    assert note.read_bytes() == whole


def test_a_corpus_that_was_seen_incomplete_is_not_taken_for_complete_while_the_store_is_away(
    path, faulty, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote, "RETRY_TIMEOUT", timedelta(seconds=0.2))
    open_store(path, faulty.options).delete("commits/000003.json")
    more = {"options": faulty.options, "cache": tmp_path / "cache"}
    assert len(Corpus(path, partial=True, **more)) == sum(KEPT) - KEPT[3]
    faulty.busy = {"any": -1}
    assert len(Corpus(path, partial=True, **more)) == sum(KEPT) - KEPT[3]
    with pytest.raises(StoreError, match=r"^s3://[^\n]*; when it was last seen 5 of 6 shards were committed[^\n]*$"):
        Corpus(path, **more)


def test_storage_that_gives_all_for_a_range_is_a_line(path, faulty):
    faulty.ignores = frozenset({"range"})
    with pytest.raises(StoreError, match=r"^s3://[^\n]*$"):
        read(path, faulty)


def test_storage_that_is_gone_is_a_line_and_the_process_ends(path, faulty, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_TIMEOUT", timedelta(seconds=0.2))
    faulty.busy = {"range": -1}
    with pytest.raises(StoreError, match=r"^s3://[^\n]*SlowDown[^\n]*$"):
        read(path, faulty, on_error="skip")
    faulty.busy = {}
    assert len(read(path, faulty)[0]) == 44
