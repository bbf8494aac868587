"""A process of its own for whatever needs Ray, and another where that is lost: the run's side, which knows no Ray.

Ray ends the process that uses it, in C++ and without a word of ours, or leaves it waiting for ever, where one of Ray's
own processes is gone. So the driver lives in a process (``driving``) that is told what to do and tells how it goes,
over a pipe. Where it is lost, and with it a Ray that it had started, another is begun and goes on from what is
committed; a Ray that was joined is joined again. It dies with the process that began it, and its Ray with it.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from typing import Any

from pipeline.cluster.limits import limit_of_processes
from pipeline.cluster.progress import Progress
from pipeline.cluster.protocol import Snapshot
from pipeline.cluster.watch import Lost, Watch
from pipeline.config.schema import Config
from pipeline.errors import ClusterError, LacunaError

LOSSES = 5  # in a row, without a shard committed between: not bad luck
OWN = "local"  # as RAY_ADDRESS: a Ray that the process starts itself, and that ends with it
BEGINNING = 120.0  # seconds
FAREWELL = 60.0  # seconds for the process to end its Ray, once it is told to
SPAWN = (
    "import json, sys; number, sys.path[:], sys.argv[:] = json.loads(sys.argv[1]); "
    "from pipeline.cluster.on_ray.driving import main; main(number)"
)

Tell = Callable[[Any], None]  # sends one of the messages below


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The process waits for *what*, and is lost where no other word of it comes within *seconds*."""

    what: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Joined:
    """It is in a Ray: at *address*, or in one that it has started itself and that ends with it (None)."""

    address: str | None


@dataclass(frozen=True, kw_only=True)
class Said:
    """A line for whoever watches the run."""

    line: str


@dataclass(frozen=True, kw_only=True)
class Gone:
    """Ray is lost, and *why*; it is of no more use to this process."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What it was asked for has ended well."""

    result: Any


@dataclass(frozen=True, kw_only=True)
class Raised:
    """It has ended with an exception; this process ends."""

    error: BaseException


class Supervisor:
    """Context: the process lives, once it is asked for something, to the end of it."""

    def __init__(self, config: Config):
        self._config = config
        self._process: _Process | None = None
        self._address = ""  # of the Ray to join again, for good: others have other machines; or OWN
        self._losses, self._done, self._done_at_loss = 0, 0, 0

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.end()

    def ask(self, task: Callable[[], Callable[[Tell], Any]], progress: Progress) -> Any:
        """Have what *task* makes carried out, and return what it returns; it is made anew, from what is committed by
        then, for each process that it takes.

        Raises what that raises, or ``Lost`` where no process, and no Ray, can do it any more.
        """
        while True:
            if self._process is None:
                self._process = _Process(self._config, self._address)
            try:
                return self._carried_out(self._process, task(), progress)
            except Lost as lost:
                process, self._process = self._process, None
                process.kill()
                self._count(lost)
                if process.gone and self._address not in ("", OWN):
                    raise
                progress.say(f"{lost}; {'starting' if self._address == OWN else 'joining'} Ray again")

    def _count(self, lost: Lost) -> None:
        self._losses = self._losses + 1 if self._done == self._done_at_loss else 1
        self._done_at_loss = self._done
        if self._losses >= LOSSES:
            raise Lost(f"{lost}, {self._losses} times without a shard committed between") from None

    def _carried_out(self, process: "_Process", task: Callable[[Tell], Any], progress: Progress) -> Any:
        waiting = Waiting(what="the process that drives Ray to begin", seconds=BEGINNING)
        watch = Watch(progress.say)

        def what() -> str:
            return waiting.what

        process.send(task)
        while True:
            message = process.receive(1.0)
            if message is None:
                try:
                    watch.look(what, waiting.seconds)
                except Lost as lost:
                    if process.joined or (limit := limit_of_processes()) is None:
                        raise
                    process.kill()  # Ray, which waits for a thread that it will not get, hears no SIGTERM
                    raise ClusterError(f"{lost}; {limit}; cluster.backend=local does without Ray") from None
                continue
            watch.happened()
            match message:
                case Waiting():
                    waiting = message
                case Snapshot():
                    self._done = message.done
                    progress.update(message)
                case Said():
                    progress.say(message.line)
                case Joined():
                    self._address = message.address or OWN
                    process.joined = True
                case Gone():
                    process.gone = True
                    raise Lost(message.why)
                case Ended():
                    return message.result
                case Raised():
                    if self._losses and not process.joined and isinstance(message.error, LacunaError):
                        process.gone = True
                        raise Lost(str(message.error))
                    raise message.error


class _Process:
    """One such process."""

    def __init__(self, config: Config, address: str):
        self.joined = self.gone = False  # has it said so of its Ray?
        self._pipe, theirs = Pipe()
        word = json.dumps([theirs.fileno(), sys.path, sys.argv])
        environment = {**os.environ, "RAY_ADDRESS": address} if address else None
        # A group of its own: Ctrl-C is for this process, which says what is to be done. -P: what lies in the current
        # folder takes no library's place.
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-c", SPAWN, word], pass_fds=[theirs.fileno()], env=environment, process_group=0
        )
        theirs.close()
        self.send(config)

    def send(self, value: Any) -> None:
        """Send what can be pickled; that nobody is there to read it shows when the answer is due."""
        data = pickle.dumps(value)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send_bytes(data)

    def receive(self, seconds: float) -> Any:
        """Return the next message, or None where there is none in time; ``Lost`` where there will be none."""
        try:
            return self._pipe.recv() if self._pipe.poll(seconds) else None
        except (EOFError, ConnectionResetError):
            code = self._popen.wait()
            how = f"of {signal.Signals(-code).name}" if code < 0 else f"with {code}"
            raise Lost(f"the process that drives Ray has ended {how}") from None

    def end(self) -> None:
        """Let it leave or end its Ray, and wait for that; by force where it takes too long."""
        self._popen.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(FAREWELL)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once. What it has started ends with it."""
        self._popen.kill()
        self._popen.wait()
        self._pipe.close()
