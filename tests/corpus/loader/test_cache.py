"""The cache: bounded, shared by processes, whole or not there, and kept after a restart."""

import fcntl
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.corpus.loader import Cache
from pipeline.errors import ConfigError, StoreError


def refuse():
    raise AssertionError("it is there and is not to be fetched")


def test_a_range_is_fetched_once_and_survives(tmp_path):
    assert Cache(tmp_path).open("a", 5, lambda: b"whole").read() == b"whole"
    assert Cache(tmp_path).open("a", 5, refuse).read() == b"whole"


def test_a_range_that_was_cut_is_fetched_again_and_whoever_has_it_open_keeps_that(tmp_path, caplog):
    cache = Cache(tmp_path)
    before = cache.open("a", 5, lambda: b"whole")
    path = cache.path("a")
    os.truncate(path, 2)
    again = cache.open("a", 5, lambda: b"whole")
    assert (before.read(), again.read(), path.read_bytes()) == (b"wh", b"whole", b"whole")
    assert f"{path}: has 2 bytes, where 5 were cached; it is fetched again" in caplog.text
    assert cache.open("a", 5, refuse).read() == b"whole"


def test_processes_that_find_a_range_cut_fetch_it_once_between_them(tmp_path):
    for name in ("a", "b"):
        Cache(tmp_path / "cache").open(name, 1000, lambda name=name: name.encode() * 1000).close()
        os.truncate(Cache(tmp_path / "cache").path(name), 7)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert all(pool.starmap(_fetch, [(tmp_path / "cache", "ab"[i % 2], tmp_path / "log") for i in range(8)]))
    assert sorted((tmp_path / "log").read_text().split()) == ["a", "b"]


def _fetch(folder, name, log):
    def fetch():
        with open(log, "a") as file:
            file.write(f"{name}\n")
        time.sleep(0.2)
        return name.encode() * 1000

    return Cache(folder).open(name, 1000 * len(name), fetch).read() == name.encode() * 1000


def test_processes_and_threads_fetch_it_once_between_them(tmp_path):
    names = [f"n{i % 4}" for i in range(12)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert all(pool.starmap(_fetch, [(tmp_path / "cache", name, tmp_path / "log") for name in names]))
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: _fetch(tmp_path / "cache", "threads", tmp_path / "log"), range(8)))
    assert sorted((tmp_path / "log").read_text().split()) == ["n0", "n1", "n2", "n3", "threads"]


def test_what_a_dead_process_left_is_not_served(tmp_path):
    cache = Cache(tmp_path)
    (tmp_path / "ranges").mkdir()
    (tmp_path / "ranges" / "a.part").write_bytes(b"torn and much longer than what comes")
    assert cache.open("a", 5, lambda: b"whole").read() == b"whole"


def test_a_fetch_that_fails_leaves_nothing_and_may_be_repeated(tmp_path):
    def fail():
        raise StoreError("not now")

    with pytest.raises(StoreError, match=r"not now"):
        Cache(tmp_path).open("a", 5, fail)
    assert Cache(tmp_path).open("a", 5, lambda: b"whole").read() == b"whole"


def test_it_is_bounded_and_keeps_what_was_used_last(tmp_path):
    cache = Cache(tmp_path, size=3000)
    for number in range(3):
        cache.open(f"{number}", 1000, lambda: bytes(1000))
        os.utime(tmp_path / "ranges" / f"{number}", (number, number))
    held = cache.open("0", 1000, refuse)  # used now
    cache.open("3", 1000, lambda: bytes(1000))
    assert sorted(os.listdir(tmp_path / "ranges")) == ["0", "2", "3"]
    cache.open("4", 5000, lambda: bytes(5000))
    assert os.listdir(tmp_path / "ranges") == ["4"]
    assert held.read() == bytes(1000)  # whoever has it open keeps it


def test_the_folder_is_not_looked_through_for_each_range(tmp_path, monkeypatch):
    looked = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(path) or scandir(path))
    cache = Cache(tmp_path, size=70 * 100)
    for number in range(150):
        cache.open(f"{number}", 100, lambda: bytes(100)).close()
        assert len(os.listdir(tmp_path / "ranges")) <= 70
    assert len(os.listdir(tmp_path / "ranges")) > 70 - 2
    assert len(looked) == 1 + 80 // 2  # when it was new, and then for every second: one of 64 more is removed with one
    assert (tmp_path / "ranges" / "149").exists()


def test_the_bound_is_kept_by_those_who_share_a_folder_and_after_a_death(tmp_path):
    caches = [Cache(tmp_path, size=1000), Cache(tmp_path, size=1000)]
    for number in range(40):
        caches[number % 2].open(f"{number}", 100, lambda: bytes(100)).close()
        assert len(os.listdir(tmp_path / "ranges")) <= 10
    for said in ("", "nonsense", "999999999"):  # what a power loss left, or one who died before the range had its name
        (tmp_path / "ranges.bytes").write_text(said)
        Cache(tmp_path, size=1000).open(f"a{said}", 100, lambda: bytes(100)).close()
        assert (tmp_path / "ranges.bytes").read_text() == "1000"
        assert len(os.listdir(tmp_path / "ranges")) == 10


def test_a_folder_or_size_that_cannot_be_is_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be used as a cache \(Not a directory\)"):
        Cache(tmp_path / "file").open("a", 0, lambda: b"")
    with pytest.raises(ConfigError, match=r"cache: size is 0; expected a number of bytes"):
        Cache(tmp_path, size=0)


def test_a_process_that_is_forked_during_a_fetch_does_not_hold_its_lock(tmp_path):
    ends, go = os.pipe()
    children = []

    def fetch() -> bytes:
        if not (pid := os.fork()):
            os.close(go)
            os.read(ends, 1)
            os._exit(0)
        children.append(pid)
        return b"range"

    with Cache(tmp_path).open("a", 5, fetch) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(go)
            os.waitpid(children[0], 0)
