"""The process that drives Ray dies, falls silent or loses its Ray: another is begun, or the run ends with a line."""

import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.cluster import supervisor
from pipeline.cluster.on_ray import driving
from pipeline.cluster.supervisor import Ended, Supervisor
from pipeline.cluster.watch import QUIET, Lost, Watch
from pipeline.config.schema import Config
from pipeline.corpus.stores import CREATE_PAUSES
from pipeline.errors import ConfigError
from tests.cluster.pretend import ORDERS
from tests.cluster.test_progress import START
from tests.progress import Lines

ROOT = Path(__file__).resolve().parents[2]


Asked = Callable[..., tuple[Any, Lines]]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Ask a supervisor whose processes do as they are told, one after the other."""
    monkeypatch.setattr(
        supervisor, "SPAWN", supervisor.SPAWN.replace("pipeline.cluster.on_ray.driving", "tests.cluster.pretend")
    )
    monkeypatch.setenv(ORDERS, str(tmp_path / "orders"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def ask(*orders: str, done: int = 0) -> tuple[Any, Lines]:
        (tmp_path / "orders").write_text("\n".join(orders))
        (tmp_path / "orders.done").write_bytes(pickle.dumps(replace(START, done=done)))
        lines, tasks = Lines(), iter(range(100))
        with Supervisor(Config()) as on_ray:
            lines.result = on_ray.ask(lambda: f"task {next(tasks)}", lines)  # type: ignore[attr-defined]
        return lines.result, lines  # type: ignore[attr-defined]

    return ask


def test_it_passes_on_what_is_told_and_returns_the_result(asked: Asked) -> None:
    result, progress = asked("own say done config", done=7)
    assert result == "info"
    assert progress.lines == ["asked for task 0, with RAY_ADDRESS=None"]
    assert [snapshot.done for snapshot in progress.snapshots] == [7]


def test_a_ray_of_its_own_is_started_again_and_the_work_asked_for_anew(asked: Asked) -> None:
    result, progress = asked("own gone sleep", "own die", "own say config")
    assert result == "info"
    assert progress.lines == [
        "Ray's raylet has died; starting Ray again",
        "the process that drives Ray has ended of SIGKILL; starting Ray again",
        "asked for task 2, with RAY_ADDRESS=local",
    ]


def test_of_a_ray_that_is_not_its_own_only_the_process_is_begun_again(asked: Asked) -> None:
    _, progress = asked("joined die", "joined say config")
    assert progress.lines[-1] == "asked for task 1, with RAY_ADDRESS=10.0.0.1:6379"
    with pytest.raises(Lost, match=r"^Ray's raylet has died$"):
        asked("joined gone sleep", "joined config")
    with pytest.raises(Lost, match=r"^no Ray answers there$"):
        asked("joined die", "refuse", "joined config")


def test_a_first_refusal_is_what_it_says(asked: Asked) -> None:
    with pytest.raises(ConfigError, match="no Ray answers there"):
        asked("refuse")


def test_silence_has_a_bound(asked: Asked) -> None:
    result, progress = asked("own wait sleep", "own config")
    assert result == "info"
    assert len(progress.lines) == 1
    assert progress.lines[0].startswith("nothing has happened for 1 s while waiting for Godot; starting Ray again")


def test_it_is_begun_again_so_often_and_more_often_where_shards_are_committed(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LOSSES", 2)
    with pytest.raises(Lost, match="ended of SIGKILL, 2 times without a shard committed between"):
        asked("own die", "own die", "own config")
    result, _ = asked("own die", "own done die", "own config", done=3)
    assert result == "info"


def test_each_task_may_wait_for_storage_before_its_first_word() -> None:
    words: list[Any] = []
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    tasks.put(lambda tell: "float32")
    tasks.put(lambda tell: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        driving.serve(words.append, tasks)
    assert words == [driving.ASKING, Ended(result="float32"), driving.ASKING]
    assert driving.ASKING.seconds > 2 * sum(CREATE_PAUSES) > supervisor.BEGINNING


def test_the_process_ends_with_whoever_began_it(tmp_path: Path) -> None:
    code = (
        "from pipeline.cluster import supervisor; from pipeline.config.schema import Config; "
        "from pipeline.cluster.progress import Lines; "
        "supervisor.Supervisor(Config()).ask(lambda: 'x', Lines())"
    )
    # The real one: it waits for a Ray to be joined, at a port that takes connections and never answers.
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{server.getsockname()[1]}"}
        run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
        server.accept()
        (child,) = psutil.Process(run.pid).children()
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        assert psutil.wait_procs([child], timeout=30)[1] == []


def test_what_is_waited_for_is_said_ever_more_rarely_and_not_for_ever() -> None:
    now, lines = [0.0], []
    watch = Watch(lines.append, clock=lambda: now[0])

    def pass_time(seconds: float) -> None:
        end = now[0] + seconds
        while now[0] < end:
            now[0] += 1.0
            watch.look(lambda: "snow", bound=500.0)

    pass_time(QUIET - 1)
    assert lines == []
    pass_time(1)
    assert lines == ["nothing to show for 30 s; waiting for snow, for up to 500 s"]
    pass_time(QUIET * 8 - QUIET)
    assert [line.split(" s;")[0] for line in lines] == [f"nothing to show for {n}" for n in (30, 60, 120, 240)]
    watch.happened()
    pass_time(QUIET)
    assert lines[4:] == ["nothing to show for 30 s; waiting for snow, for up to 500 s"]
    pass_time(400)
    watch.happened(shown=False)
    pass_time(QUIET * 16 - 400 - QUIET)
    assert lines[-1].startswith("nothing to show for 480 s"), "what is not shown is no reason to say nothing"
    with pytest.raises(Lost, match="nothing has happened for 500 s while waiting for snow"):
        pass_time(500)
