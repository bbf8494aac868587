"""A real store that notes what is asked of it: on an object store every call costs 50 ms."""

from collections.abc import Callable
from typing import Any

from pipeline.corpus import Store


class Counted:
    """``calls`` are (method, first argument), in the order in which they were made."""

    def __init__(self, store: Store, before: Callable[[str, str], None] = lambda method, path: None):
        """*before* is called with the same, before each."""
        self._store, self._before, self.url = store, before, store.url
        self.calls: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value):
            return value

        def call(path: str = "", *args: Any, **kwargs: Any) -> Any:
            self._before(name, path)
            self.calls.append((name, path))
            return value(*((path,) if path else ()), *args, **kwargs)

        return call

    def read_under(self, folder: str) -> list[str]:
        """The objects of *folder* that were read, sorted; one that was read twice is there twice."""
        return sorted(path for method, path in self.calls if method == "read" and path.startswith(f"{folder}/"))
