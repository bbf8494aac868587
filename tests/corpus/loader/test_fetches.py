"""Blocks are fetched so many at once, what is waited for first, and a process that ends drops what was announced."""

import subprocess
import sys
import threading

import pytest

from pipeline.corpus.loader.fetches import AT_ONCE, Fetches
from pipeline.errors import StoreError


class Storage:
    """Answers when it is told to."""

    def __init__(self):
        self.asked, self.open, self.busy = [], threading.Semaphore(0), threading.Semaphore(0)

    def fetch(self, block):
        self.asked.append(block)
        self.busy.release()
        self.open.acquire()
        return block * 10

    def answer(self, count):
        for _ in range(count):
            self.open.release()


def test_what_is_waited_for_comes_before_what_is_announced_and_so_many_at_once():
    storage = Storage()
    fetches = Fetches(storage.fetch)
    announced = {block: fetches.ask(block, urgent=False) for block in range(50)}
    for _ in range(AT_ONCE):
        storage.busy.acquire()
    assert sorted(storage.asked) == list(range(AT_ONCE))
    urgent = fetches.ask(99, urgent=True)
    fetches.hurry(40)
    storage.answer(2)
    for _ in range(2):
        storage.busy.acquire()
    assert set(storage.asked[AT_ONCE:]) == {99, 40}
    storage.answer(100)
    assert [future.result() for future in announced.values()] == [block * 10 for block in range(50)]
    assert urgent.result() == 990
    assert sorted(storage.asked) == [*range(50), 99]


def test_an_error_is_that_of_whoever_waits_and_others_go_on():
    def fetch(block):
        if block == 1:
            raise StoreError("not now")
        return block

    fetches = Fetches(fetch)
    futures = [fetches.ask(block, urgent=False) for block in range(3)]
    assert (futures[0].result(), futures[2].result()) == (0, 2)
    with pytest.raises(StoreError, match="not now"):
        futures[1].result()
    assert fetches.ask(1, urgent=True).exception() is not None


SCRIPT = r"""
import sys, threading
from pipeline.corpus.loader.fetches import Fetches
begun = threading.Semaphore(0)
def fetch(block):
    print(f"{block}\n", end="", flush=True)
    begun.release()
    threading.main_thread().join()
fetches = Fetches(fetch)
for block in range(1000):
    fetches.ask(block, urgent=False)
for _ in range(16):
    begun.acquire()
"""


@pytest.mark.slow
def test_a_process_that_ends_drops_what_was_announced():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(ended.stdout.split()) == AT_ONCE
