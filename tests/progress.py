"""Progresses of runs: one that shows nothing, and one that remembers."""

from pipeline.cluster.protocol import Snapshot


class Silent:
    def update(self, snapshot: Snapshot) -> None: ...
    def say(self, line: str) -> None: ...
    def close(self) -> None: ...


class Lines(Silent):
    """Remembers what is said, and the snapshots."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.snapshots: list[Snapshot] = []

    def update(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def of(self, how: str) -> list[str]:
        """The kinds, without shapes, of the lines on compiling that begin so."""
        return [line.removeprefix(how).split("-")[0].strip() for line in self.lines if line.startswith(how)]
