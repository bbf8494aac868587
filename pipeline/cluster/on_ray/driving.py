"""The process that drives Ray for a run: see ``supervisor``, which begins it, tells it what to do, and listens."""

import contextlib
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from pipeline.cluster.process import settle_in, terminable
from pipeline.cluster.protocol import Snapshot
from pipeline.cluster.supervisor import Ended, Gone, Joined, Raised, Said, Tell, Waiting
from pipeline.cluster.watch import Lost
from pipeline.config.schema import Config
from pipeline.models.compiling import Hardware

STARTING = 300.0  # seconds for Ray to start or to be joined: seconds, but on a machine at full load
STUCK = 600.0  # seconds between two words of the driver: storage may be busy for minutes
ASKING = Waiting(what="the process that drives Ray, which asks Ray something", seconds=STUCK)


class _Pipe:
    """The way to the run, for all threads."""

    def __init__(self, number: int):
        os.set_inheritable(number, False)  # Ray must not hold it open
        self._connection = Connection(number)
        self._lock = threading.Lock()

    def tell(self, message: Any) -> None:
        data = pickle.dumps(message)
        with self._lock, contextlib.suppress(OSError):  # the run is gone, as ``listen`` will find
            self._connection.send_bytes(data)

    def listen(self, tasks: "queue.SimpleQueue[Callable[[Tell], Any]]") -> None:
        """Pass on what the run asks for; end with it: at once, because nobody waits for an orderly end."""
        while True:
            try:
                tasks.put(self._connection.recv())
            except (EOFError, OSError):
                os.kill(os.getpid(), signal.SIGKILL)
            except Exception as error:  # what is asked for cannot be unpickled here
                self.tell(Raised(error=_portable(error)))


def main(number: int) -> None:
    """Do what comes over the pipe with this file number, until SIGTERM."""
    pipe = _Pipe(number)
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=pipe.listen, args=(tasks,), daemon=True).start()
    try:
        config: Config = tasks.get()
        settle_in(config)
        pipe.tell(Waiting(what="Ray to start or to be joined", seconds=STARTING))
        from pipeline.cluster.on_ray.joining import joined

        # Ray takes SIGTERM for itself on starting, so ours is set again, and at the end put back.
        with terminable(), joined(lambda why: pipe.tell(Gone(why=why))) as address, terminable():
            pipe.tell(Joined(address=address))
            serve(pipe.tell, tasks)
    except KeyboardInterrupt:
        pipe.tell(Raised(error=KeyboardInterrupt()))
    except Lost as lost:
        pipe.tell(Gone(why=str(lost)))
    except Exception as error:
        pipe.tell(Raised(error=_portable(error)))


def serve(tell: Tell, tasks: "queue.SimpleQueue[Callable[[Tell], Any]]") -> NoReturn:
    """Do one task after the other. Each begins with storage, which may be busy for longer than a process to begin."""
    while True:
        task = tasks.get()
        tell(ASKING)
        tell(Ended(result=task(tell)))


class Relay:
    """The run's progress, as the driver sees it."""

    def __init__(self, tell: Tell):
        self._tell = tell

    def update(self, snapshot: Snapshot) -> None:
        self._tell(snapshot)

    def say(self, line: str) -> None:
        self._tell(Said(line=line))

    def close(self) -> None:
        """The run closes its own."""


def drive(tell: Tell, **arguments: Any) -> Snapshot:
    """Work as ``Driver`` does, which takes the *arguments*."""
    from pipeline.cluster.on_ray.driver import Driver

    return Driver(progress=Relay(tell), alive=partial(tell, ASKING), **arguments).run()


def hardware(tell: Tell, config: Config) -> Hardware:
    """See ``machines.hardware_of_workers``."""
    from pipeline.cluster.on_ray.machines import hardware_of_workers

    seconds = config.cluster.startup_timeout
    tell(Waiting(what="room for a worker, whose device says what it can do", seconds=seconds + STUCK))
    return hardware_of_workers(config)


def _portable(error: Exception) -> Exception:
    """Return *error* with its traceback as a note, or where it cannot be pickled, what it says."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
