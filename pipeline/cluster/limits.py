"""How many processes and threads this user may have here: Ray has hundreds, and hangs or dies where it gets no more."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]

CONTAINER = Path("/sys/fs/cgroup")
MAY_NEED = 1000  # of Ray 175 on 2 CPUs, and more on more; of a worker, and of the coordinator, about 30


def limit_of_processes() -> str | None:
    """Say how many processes and threads this user or container may have and has, where more may be needed."""
    return ", ".join(said for left, said in limits() if left < MAY_NEED) or None


def limits() -> Iterator[tuple[int, str]]:
    """Each limit on processes and threads: how many are left, and what to say of it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if limit != resource.RLIM_INFINITY and os.getuid() != 0:
        used = _threads_of_user()
        yield limit - used, f"this user may have {limit} processes and threads (ulimit -u) and has {used}"
    most, now = CONTAINER / "pids.max", CONTAINER / "pids.current"
    if most.exists() and (text := most.read_text().strip()).isdigit():
        used = int(now.read_text())
        yield int(text) - used, f"this container may have {text} processes and threads (pids.max) and has {used}"


def _threads_of_user() -> int:
    threads = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            if process.uids().real == os.getuid():
                threads += process.num_threads()
    return threads
