"""Files on this machine that are there whole or not at all, whatever dies."""

import os
from pathlib import Path


def replace_synced(path: Path, data: bytes, temporary: Path) -> None:
    """Make *data* the content of *path*, by way of *temporary*, a free name in the same folder. Raises ``OSError``.

    It is on the disk before it has its name: else the name may outlive, in a power loss, what it names.
    """
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
