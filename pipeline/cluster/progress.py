"""What a person sees of a run: a live bar on a terminal, a plain line every so often in a log.

Knows only snapshots of the coordinator. Rates are over a short past, so that they follow workers that come and go.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, TextIO

from pipeline.cluster.protocol import Snapshot

WINDOW = 60.0  # seconds that rates look back on, or
SHARDS = 10  # so many shards, whichever is longer: a shard may take many minutes
SECONDS_BETWEEN_LINES = 15.0


class Progress(Protocol):
    """Shows snapshots as they come; ``close`` leaves the last one standing."""

    def update(self, snapshot: Snapshot) -> None: ...
    def say(self, line: str) -> None: ...
    def close(self) -> None: ...


class Rate:
    """Images per second and time to go, from snapshots."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._points: deque[tuple[float, int, int]] = deque()  # (seconds, images, shards done), where these changed
        self._now = 0.0

    def update(self, snapshot: Snapshot) -> None:
        """Take in a snapshot."""
        self._now = self._clock()
        point = (self._now, snapshot.images, snapshot.done)
        if self._points and snapshot.images < self._points[-1][1]:
            self._points.clear()  # a new coordinator counts from nought
        if not self._points or point[1:] != self._points[-1][1:]:
            self._points.append(point)
        while len(self._points) > 2 and self._is_old(*self._points[1]):
            self._points.popleft()

    def _is_old(self, seconds: float, images: int, done: int) -> bool:
        return self._now - seconds > WINDOW and self._points[-1][2] - done >= SHARDS

    def images_per_second(self) -> float:
        """Images committed per second, in the window."""
        start, images, _ = self._points[0]
        return (self._points[-1][1] - images) / (self._now - start) if self._now > start else 0.0

    def eta(self, snapshot: Snapshot) -> str:
        """Time to go as ``h:mm:ss``, or ``?`` before the first shard is done."""
        start, _, done = self._points[0]
        left = snapshot.shards - snapshot.done - len(snapshot.given_up)
        if snapshot.done == done:
            return "?"
        seconds = round(left * (self._now - start) / (snapshot.done - done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def describe(snapshot: Snapshot, rate: Rate) -> str:
    """One line: what a person wants to know of a run, most important first."""
    parts = [
        f"{snapshot.done}/{snapshot.shards} shards",
        f"{rate.images_per_second():.1f} images/s",
        f"{snapshot.workers} worker{'s' * (snapshot.workers != 1)}",
    ]
    for status in ("quarantined", "dropped", "failed"):
        if snapshot.counts.get(status):
            parts.append(f"{snapshot.counts[status]} {status}")
    if snapshot.given_up:
        parts.append(f"{len(snapshot.given_up)} shard{'s' * (len(snapshot.given_up) != 1)} given up")
    if not snapshot.finished:
        parts.append(f"ETA {rate.eta(snapshot)}")
    return ", ".join(parts)


class Lines:
    """Plain lines, for logs: one at the start, one at the end, one now and then between."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._stream, self._clock, self._rate = stream or sys.stderr, clock, Rate(clock)
        self._next = 0.0
        self._last = ""

    def update(self, snapshot: Snapshot) -> None:
        self._rate.update(snapshot)
        for line in snapshot.log:
            self.say(line)
        self._last = describe(snapshot, self._rate)
        if self._clock() >= self._next:
            self._next = self._clock() + SECONDS_BETWEEN_LINES
            self.say(self._last)
            self._last = ""

    def say(self, line: str) -> None:
        print(f"lacuna: {line}", file=self._stream, flush=True)

    def close(self) -> None:
        if self._last:
            self.say(self._last)
            self._last = ""


class Bar:
    """A live bar on a terminal, with what happens printed above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._rate = Rate()
        self._console = Console(stderr=True)
        columns = (BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.description}"))
        self._bar = RichProgress(*columns, console=self._console, refresh_per_second=4)
        self._task = self._bar.add_task("starting", total=None)
        self._bar.start()

    def update(self, snapshot: Snapshot) -> None:
        self._rate.update(snapshot)
        for line in snapshot.log:
            self.say(line)
        done = snapshot.done + len(snapshot.given_up)
        self._bar.update(self._task, total=snapshot.shards, completed=done, description=describe(snapshot, self._rate))

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)

    def close(self) -> None:
        self._bar.stop()


def open_progress() -> Progress:
    """A bar where there is a terminal to draw it on, lines elsewhere."""
    return Bar() if sys.stderr.isatty() else Lines()
