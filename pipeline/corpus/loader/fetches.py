"""Blocks that are fetched by threads: first what somebody waits for, then what was announced, each in its order.

So the requests that storage can serve at once are under way as long as anything is announced, and an announcement never
keeps a reader waiting.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from io import FileIO

AT_ONCE = 16  # requests under way; a block is in memory while it is fetched, and nowhere else


class Fetches:
    """Calls *fetch* of each block that is asked for, ``AT_ONCE`` of them at once.

    A process that ends waits for the fetches under way, and drops those that have not begun.
    """

    def __init__(self, fetch: Callable[[int], FileIO]):
        self._fetch = fetch
        self._lock = threading.Lock()
        self._urgent: dict[int, Future[FileIO]] = {}
        self._announced: dict[int, Future[FileIO]] = {}
        self._threads = 0

    def ask(self, block: int, urgent: bool) -> Future[FileIO]:
        """Have *block* fetched: before all that is only announced where it is *urgent*."""
        future: Future[FileIO] = Future()
        with self._lock:
            (self._urgent if urgent else self._announced)[block] = future
            self._begin()
        return future

    def hurry(self, block: int) -> None:
        """Somebody waits for *block* now."""
        with self._lock:
            if (future := self._announced.pop(block, None)) is not None:
                self._urgent[block] = future
                self._begin()

    def _begin(self) -> None:
        if self._threads < AT_ONCE:
            threading.Thread(target=self._work, name="lacuna-read").start()
            self._threads += 1

    def _work(self) -> None:
        while (taken := self._taken()) is not None:
            block, future = taken
            try:
                future.set_result(self._fetch(block))
            except BaseException as error:  # whoever waits for it raises it
                future.set_exception(error)

    def _taken(self) -> tuple[int, Future[FileIO]] | None:
        """Take the next block; None where there is none, and this thread ends."""
        with self._lock:
            queue = self._urgent
            if not queue and threading.main_thread().is_alive():
                queue = self._announced
            if queue:
                block = next(iter(queue))
                return block, queue.pop(block)
            self._threads -= 1
            return None
