"""Files are held open, but in all no more than the system allows, and none for a holder that is gone."""

import resource
from io import FileIO

import pytest

from pipeline.corpus.loader import open_files
from pipeline.corpus.loader.open_files import SHARE, OpenFiles


@pytest.fixture
def most(monkeypatch):
    monkeypatch.setattr(open_files, "_open", type(open_files._open)())  # other tests' files apart
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    yield 400 // SHARE
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_all_holders_together_keep_what_was_used_last(most, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    holders = [OpenFiles() for _ in range(5)]  # the corpora of a mixture
    first = holders[0].keep(0, FileIO(tmp_path / "file"))
    for number in range(1, 200):
        for holder in holders:
            holder.keep(number, FileIO(tmp_path / "file"))
        assert holders[0].get(0) is first  # used all the time
    assert len(open_files._open) == most
    assert holders[0].get(199) is not holders[1].get(199)
    assert holders[0].get(1) is None
    assert first.read() == b"x"


def test_those_of_a_holder_that_is_gone_are_closed(most, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    one, other = OpenFiles(), OpenFiles()
    one.keep(1, FileIO(tmp_path / "file"))
    other.keep(1, FileIO(tmp_path / "file"))
    del one
    assert len(open_files._open) == 1
    assert other.get(1) is not None
