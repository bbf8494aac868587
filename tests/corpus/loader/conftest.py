"""Corpora for tests of the loader, of any numbers of samples, and a home for their indexes."""

import shutil

import pytest

from tests.corpora import make_corpus


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Indexes lie in the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "lacuna"


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("loader") / "corpus")
    make_corpus(path, [100, 28, 0, 128, 88])
    return path


@pytest.fixture
def corpus(original, tmp_path):
    """A corpus of 344 pictures to train on, in shards of unequal numbers; one has none."""
    return shutil.copytree(original, str(tmp_path / "corpus"))
