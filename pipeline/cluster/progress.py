"""What a person sees of a run: a live bar on a terminal, a plain line every so often in a log.

Knows only snapshots of the coordinator. Rates are over a short past, so that they follow workers that come and go.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, TextIO

from pipeline.cluster.protocol import Snapshot
from pipeline.terminal import live, printable

WINDOW = 60.0  # seconds that rates look back on, or
NEWS = 20  # so many snapshots with new pictures, whichever is longer: a batch may take minutes
SECONDS_BETWEEN_LINES = 15.0
LONGEST_BAR = 30  # columns
PERCENT = 6  # columns of " 100% " between the bar and what follows it


class Progress(Protocol):
    """Shows snapshots as they come; ``close`` leaves the last one standing."""

    def update(self, snapshot: Snapshot) -> None: ...
    def say(self, line: str) -> None: ...
    def close(self) -> None: ...


class Rate:
    """Images per second and time to go, from snapshots; ``None`` until the first batch is drawn.

    The time before the first lease, in which models load, counts for nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        # (seconds, images, shards done and parts of shards), where these changed
        self._points: deque[tuple[float, int, float]] = deque()
        self._now = 0.0
        self._begun = False  # a shard was leased: a device is at work
        self._images = 0  # of the last snapshot
        self._before = 0  # what coordinators counted that are gone: a new one begins from nought

    def update(self, snapshot: Snapshot) -> None:
        """Take in a snapshot."""
        self._now = self._clock()
        if snapshot.images < self._images:
            self._before += self._images
        self._images = snapshot.images
        point = (self._now, self._before + snapshot.images, snapshot.done + snapshot.under_way)
        if not self._begun:
            self._points.clear()
        self._begun = self._begun or snapshot.leased > 0 or snapshot.images > 0
        if not self._points or point[1:] != self._points[-1][1:]:
            self._points.append(point)
        while len(self._points) > NEWS and self._now - self._points[1][0] > WINDOW:
            self._points.popleft()

    def images_per_second(self) -> float | None:
        """Images drawn per second, further seeds included, in the window."""
        start, images, _ = self._points[0]
        return (self._points[-1][1] - images) / (self._now - start) if self._points[-1][1] > images else None

    def eta(self, snapshot: Snapshot) -> str | None:
        """Time to go as ``h:mm:ss``."""
        start, _, before = self._points[0]
        gone = self._points[-1][2] - before
        if gone <= 0:
            return None
        left = snapshot.shards - len(snapshot.given_up) - self._points[-1][2]
        seconds = max(0, round(left * (self._now - start) / gone))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def describe(snapshot: Snapshot, rate: Rate, width: int | None = None) -> str:
    """One line: what a person wants to know of a run. Where *width* is too narrow, what matters least is left out."""
    speed, eta = rate.images_per_second(), rate.eta(snapshot)
    over = bool(snapshot.finished or snapshot.stopped)
    parts = [(0, f"{snapshot.done}/{snapshot.shards} shards")]  # (the lower, the longer it stays, text)
    if speed is not None:
        parts.append((3, f"{speed:.1f} images/s" if speed >= 1 else f"{speed:.2g} images/s"))
    elif not over:
        parts.append((3, "warming up"))
    parts.append((4, f"{snapshot.workers} worker{'s' * (snapshot.workers != 1)}"))
    for status in ("quarantined", "dropped", "failed"):
        if snapshot.counts.get(status):
            parts.append((2, f"{snapshot.counts[status]} {status}"))
    if snapshot.given_up:
        parts.append((1, f"{len(snapshot.given_up)} shard{'s' * (len(snapshot.given_up) != 1)} given up"))
    if eta is not None and not over:
        parts.append((0, f"ETA {eta}"))
    line = ", ".join(text for _, text in parts)
    while width is not None and len(line) > width and (least := max(rank for rank, _ in parts)) > 0:
        parts = [part for part in parts if part[0] < least]
        line = ", ".join(text for _, text in parts)
    return line


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
        print(f"lacuna: {printable(line)}", file=self._stream, flush=True)

    def close(self) -> None:
        if self._last:
            self.say(self._last)
            self._last = ""


class Bar:
    """A live bar on a terminal, as long as there is room beside the figures, with what happens printed above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._rate = Rate()
        self._console = Console(stderr=True)
        self._column = BarColumn(bar_width=0)
        figures = (TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.description}", markup=False))
        self._bar = RichProgress(self._column, *figures, console=self._console, refresh_per_second=4)
        self._task = self._bar.add_task("starting", total=None)
        self._fit("starting")
        self._bar.start()

    def update(self, snapshot: Snapshot) -> None:
        self._rate.update(snapshot)
        for line in snapshot.log:
            self.say(line)
        done = snapshot.done + snapshot.under_way + len(snapshot.given_up)
        description = describe(snapshot, self._rate, self._console.width - PERCENT)
        self._fit(description)
        self._bar.update(self._task, total=snapshot.shards, completed=done, description=description)

    def say(self, line: str) -> None:
        self._console.print(printable(line), highlight=False, markup=False)

    def close(self) -> None:
        self._bar.stop()

    def _fit(self, description: str) -> None:
        """Give the bar the room that is left over: rich would cut the figures instead."""
        self._column.bar_width = max(0, min(LONGEST_BAR, self._console.width - PERCENT - len(description) - 1))


def open_progress() -> Progress:
    """A bar where there is a terminal to draw it on, lines elsewhere."""
    return Bar() if live() else Lines()
