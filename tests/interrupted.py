"""A store on disk, in the middle of whose work somebody else does something."""

from collections.abc import Callable
from pathlib import Path

from pipeline.corpus.local import LocalStore


class Interrupted(LocalStore):
    """Has somebody else act just before a call of this kind, once."""

    def __init__(self, root: Path, kind: str, other: Callable[[], object]):
        super().__init__(root)
        self.kind, self.others = kind, [other]

    def _meanwhile(self, kind: str) -> None:
        if kind == self.kind and self.others:
            self.others.pop()()

    def create(self, path: str, data: bytes) -> bool:
        self._meanwhile("create")
        return super().create(path, data)

    def delete(self, path: str) -> None:
        self._meanwhile("delete")
        super().delete(path)
