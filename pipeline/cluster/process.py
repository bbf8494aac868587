"""The process that a part runs in: what its environment tells, its folder, its logs, its end. Imports no Ray: asking is
free."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config.schema import Config


def in_ray_job() -> bool:
    """Does this process run under ``ray job submit``? (Ray leaves the job's configuration to its entry point.)"""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def settle_in(config: Config, folder: str | None = None) -> None:
    """Log as the config says and, in another process than the driver's, work in the driver's *folder* if it is here.

    So paths relative to it mean the same everywhere. Where it is not here, the nonce tells whether that matters.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("pipeline").setLevel(config.log_level.upper())
    if folder is not None and os.path.isdir(folder):
        os.chdir(folder)


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM (from ``ray job stop``, Slurm, Kubernetes) stop the run as Ctrl-C does, and the end of its terminal
    not at all; of the Ray that is started meanwhile neither."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous[0])
        signal.signal(signal.SIGHUP, previous[1])
