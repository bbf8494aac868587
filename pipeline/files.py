"""Files on this machine that are there whole or not at all, whatever dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.errors import StoreError


def write_whole(path: Path, data: bytes) -> None:
    """Write *data* to *path*, whose folder is made, so that it is never seen in part.

    Raises ``StoreError``. For one writer at a time: the name by the way of which it is written is the same for all.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_synced(path, data, path.with_name(path.name + ".partial"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error


@contextmanager
def held(file: IO[Any]) -> Iterator[None]:
    """Hold *file*, opened for writing and for this alone, as the only one among the processes of this machine."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough: a process forked meanwhile has it open too


def replace_synced(path: Path, data: bytes, temporary: Path) -> None:
    """Make *data* the content of *path*, by way of *temporary*, a free name in the same folder. Raises ``OSError``.

    It is on the disk before it has its name: else the name may outlive, in a power loss, what it names.
    """
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
