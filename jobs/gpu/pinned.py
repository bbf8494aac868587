"""Compiled code in a folder, for a second process and a second call: what a corpus pins, without a corpus."""

import hashlib
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.files import write_whole


class Pinned:
    """``pipeline.generation.compilation.Artifacts`` of one model on one card. ``loaded`` are the kinds of which it gave
    what another process had added."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.added: set[str] = set()
        self.loaded: set[str] = set()

    def find(self, kind: str) -> bytes | None:
        file = self._file(kind)
        if not file.exists():
            return None
        if kind not in self.added:
            self.loaded.add(kind)
        return file.read_bytes()

    def add(self, kind: str, data: bytes) -> bool:
        write_whole(self._file(kind), data)
        self.added.add(kind)
        return True

    def set_aside(self, kind: str) -> None:
        raise ConfigError(f"{self._file(kind)}: the first process has compiled {kind}, and it does not load here")

    def _file(self, kind: str) -> Path:
        return self.folder / f"{hashlib.sha256(kind.encode()).hexdigest()[:16]}.bin"
