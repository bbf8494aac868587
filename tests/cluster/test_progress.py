"""What a person reads while a run goes on."""

import io
import os
import re
import sys
import threading
from dataclasses import replace

import pytest

from pipeline.cluster.pace import FIRST_DEADLINE, SHORTEST_DEADLINE, Pace
from pipeline.cluster.progress import SECONDS_BETWEEN_LINES, Lines, Rate, describe, open_progress
from pipeline.cluster.protocol import Snapshot

START = Snapshot(
    shards=10,
    done=0,
    resumed=0,
    leased=2,
    in_doubt=0,
    patience=3600.0,
    under_way=0.0,
    workers=2,
    counts={},
    images=0,
    device_seconds=0.0,
    hung=(),
    parked=(),
    given_up={},
    blamed=(),
    stopped=None,
    finished=False,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_to_go_follow_the_recent_past() -> None:
    clock = Clock()
    rate = Rate(clock)
    rate.update(START)
    assert rate.images_per_second() is None
    assert rate.eta(START) is None
    images = 0
    for second in range(1, 401):
        clock.now = float(second)
        images += 10 if second <= 200 else 30  # more workers have come
        state = replace(START, shards=1000, images=images, done=images // 10)
        rate.update(state)
    assert rate.images_per_second() == pytest.approx(30.0, rel=0.05)
    assert rate.eta(state) == "0:01:07", "200 shards to go at 3 a second"


def test_long_shards_have_a_rate_too() -> None:
    clock = Clock()
    rate = Rate(clock)
    for second in range(0, 3600, 5):
        clock.now = float(second)
        done = second // 600
        state = replace(START, done=done, images=done * 600)
        rate.update(state)
    assert rate.images_per_second() == pytest.approx(5 * 600 / 3595)
    assert rate.eta(state).startswith("0:59:") or rate.eta(state).startswith("1:00:")


def test_one_big_shard_has_a_rate_and_a_time_to_go_after_its_first_batch() -> None:
    clock = Clock()
    out = io.StringIO()
    lines = Lines(out, clock)
    whole = replace(START, shards=1, leased=0, workers=0)
    lines.update(whole)
    clock.now = 50.0  # the model has been loaded
    drawing = replace(whole, leased=1, workers=1)
    lines.update(drawing)
    clock.now = 60.0
    lines.update(replace(drawing, images=32, under_way=0.125))
    clock.now = 75.0
    lines.update(replace(drawing, images=64, under_way=0.25))
    assert out.getvalue().splitlines() == [
        "lacuna: 0/1 shards, warming up, 0 workers",
        "lacuna: 0/1 shards, warming up, 1 worker",
        "lacuna: 0/1 shards, 2.6 images/s, 1 worker, ETA 0:01:15",
    ], "the seconds before the first lease do not count, and lines are 15 s apart"
    clock.now = 130.0
    lines.update(replace(drawing, done=1, leased=0, images=256, finished=True))
    lines.close()
    assert out.getvalue().splitlines()[-1] == "lacuna: 1/1 shards, 3.2 images/s, 1 worker"


def test_a_slow_rate_is_not_rounded_to_nothing() -> None:
    clock = Clock()
    rate = Rate(clock)
    rate.update(START)
    clock.now = 100.0
    state = replace(START, images=1, under_way=0.1)
    rate.update(state)
    assert describe(state, rate) == "0/10 shards, 0.01 images/s, 2 workers, ETA 2:45:00"


def test_a_new_coordinator_does_not_make_the_rate_negative() -> None:
    clock = Clock()
    rate = Rate(clock)
    for seconds, images in ((0.0, 0), (10.0, 100), (11.0, 0), (12.0, 10)):
        clock.now = seconds
        rate.update(replace(START, images=images))
    assert rate.images_per_second() == pytest.approx(110 / 12)


def test_a_line_says_what_matters() -> None:
    rate = Rate(clock=lambda: 0.0)
    state = replace(START, done=4, counts={"ok": 90, "quarantined": 7, "failed": 2, "dropped": 0}, given_up={3: "no"})
    rate.update(state)
    line = describe(state, rate)
    assert line == "4/10 shards, warming up, 2 workers, 7 quarantined, 2 failed, 1 shard given up"


def test_plain_lines_come_now_and_then_and_at_the_end() -> None:
    clock = Clock()
    out = io.StringIO()
    lines = Lines(out, clock)
    for second in range(40):
        clock.now = float(second)
        lines.update(
            replace(START, done=second // 4, images=second, log=["shard 000001: error"] if second == 5 else [])
        )
    lines.update(replace(START, done=10, images=39, finished=True))
    lines.close()
    lines.close()
    printed = out.getvalue().splitlines()
    assert len([line for line in printed if "shards, " in line]) == 1 + 39 // int(SECONDS_BETWEEN_LINES) + 1
    assert "lacuna: shard 000001: error" in printed
    assert "10/10 shards" in printed[-1]
    assert "ETA" not in printed[-1]


def shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, *snapshots: Snapshot, term="xterm") -> bytes:
    """What a terminal of so many columns receives."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", term)
    ours, theirs = os.openpty()
    seen: list[bytes] = []

    def watch() -> None:
        try:
            while data := os.read(ours, 4096):
                seen.append(data)
        except OSError:  # how Linux says that nobody has the other end open any more
            pass

    reader = threading.Thread(target=watch, daemon=True)
    reader.start()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = open_progress()
        for snapshot in snapshots:
            progress.update(snapshot)
        progress.close()
        progress.close()
    reader.join(timeout=30)
    os.close(ours)
    return b"".join(seen)


def lines_of(received: bytes) -> list[str]:
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", received.decode())
    return [line.strip() for line in shown.replace("\r", "\n").splitlines() if line.strip()]


def test_a_terminal_has_a_bar_with_what_happens_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = replace(START, done=4, log=["shard 000001: [bold]error\x1b[2J"], given_up={3: "no"})
    ended = replace(START, done=9, leased=0, counts={"quarantined": 7}, given_up={3: "no"}, finished=True)
    received = shown_on_a_terminal(monkeypatch, 150, begun, ended)
    lines = lines_of(received)
    assert "shard 000001: [bold]error\\x1b[2J" in lines, "as it is: a prompt may hold brackets, and escapes are shown"
    assert any("100%" in line for line in lines)
    assert lines[-1].endswith("9/10 shards, 2 workers, 7 quarantined, 1 shard given up")
    assert "━" in received.decode()
    assert b"\x1b[?25h" in received, "the cursor is shown again"


@pytest.mark.parametrize("columns", [24, 40, 60, 80])
def test_percent_and_time_to_go_are_seen_on_a_narrow_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    rate = Rate(clock)
    state = replace(START, shards=1000, counts={"quarantined": 70, "dropped": 5, "failed": 3}, given_up={3: "no"})
    rate.update(state)
    clock.now = 10.0
    state = replace(state, done=100, images=1200)
    rate.update(state)
    line = describe(state, rate, columns)
    assert len(line) <= max(columns, len("100/1000 shards, ETA 0:01:30"))
    assert line.startswith("100/1000 shards")
    assert line.endswith("ETA 0:01:30")
    assert describe(state, rate).count(", ") == 7

    monkeypatch.setattr("time.monotonic", clock)
    received = shown_on_a_terminal(monkeypatch, columns, START, replace(START, done=1, images=64, finished=True))
    assert all(len(line) <= columns for line in lines_of(received))
    assert lines_of(received)[-1].replace("━", "").strip().startswith("10% 1/10 shards")


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_redraw_has_lines(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    received = shown_on_a_terminal(monkeypatch, 80, START, replace(START, done=10, finished=True), term=term)
    assert received.decode().splitlines() == [
        "lacuna: 0/10 shards, warming up, 2 workers", "lacuna: 10/10 shards, 2 workers",
    ]  # fmt: skip


def test_a_log_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(open_progress(), Lines)


def test_deadlines() -> None:
    pace = Pace()
    assert pace.deadline(1) == FIRST_DEADLINE
    pace.measured(2.0)
    assert pace.deadline(1) == SHORTEST_DEADLINE
    pace.measured(1000.0)
    pace.measured(1000.0)
    assert pace.deadline(2) == 20_000.0
    assert Pace(timeout=7.0).deadline(3) == 21.0


def test_ten_thousand_workers_call_every_ten_minutes() -> None:
    pace = Pace()
    assert pace.lease_size(10_000, 10**6) == 1
    pace.measured(100.0)
    assert pace.report_every(10_000) == pytest.approx(600.0)
    assert pace.lease_size(10_000, 10**6) == 6
    assert pace.lease_size(10_000, 40_000) == 2
    assert pace.lease_size(10_000, 5_000) == 1
    assert pace.lease_size(1, 10**6) == 1
