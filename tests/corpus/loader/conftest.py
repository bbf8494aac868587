"""Corpora for tests of the loader, of any numbers of samples, and a home for their indexes."""

import pytest

from tests.corpora import make_corpus


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Indexes lie in the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "lacuna"


@pytest.fixture
def corpus(tmp_path):
    """A corpus of 344 pictures to train on, in shards of unequal numbers; one has none."""
    path = str(tmp_path / "corpus")
    make_corpus(path, [100, 28, 0, 128, 88])
    return path
