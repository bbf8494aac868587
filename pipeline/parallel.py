"""The same request to storage for thousands of files: many at once, answers in order, few of them held."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from pipeline.terminal import live

READERS = 32  # an object store takes 20 to 100 ms to answer, whatever is asked
PATIENCE = 1.0  # seconds before there is a bar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    function: Callable[[T], R], items: Sequence[T], *, threads: int = READERS, title: str | None = None
) -> Generator[R, None, None]:
    """Yield ``function(item)`` for each item, in order; at most two answers per thread wait to be taken.

    With a *title* there is a bar, on a terminal, where it takes long. What *function* raises is raised here in its
    place.
    """
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(
            total=len(items), desc=title, unit="shard", leave=False, delay=PATIENCE, disable=title is None or not live()
        ) as bar,
    ):
        waiting: deque[Future[R]] = deque()

        def oldest() -> R:
            answer = waiting.popleft().result()
            bar.update()
            return answer

        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == 2 * threads:
                    yield oldest()
            while waiting:
                yield oldest()
        finally:
            for future in waiting:
                future.cancel()
