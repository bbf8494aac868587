"""A bounded folder of byte ranges on this machine's disk, shared by its processes; it survives their end.

A range is there whole or not at all: it has its name, which says what it is by content, only when it is on the disk.
One process fetches it, the others wait; one that was cut from outside is fetched again, and takes its place: whoever
has the other open keeps that. A file beside them says how many bytes they are; whoever brings that over the
bound removes those that were not used for longest.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from pipeline.corpus.loader.arguments import expect_folder, shown
from pipeline.errors import ConfigError, StoreError
from pipeline.files import held

SLACK = 64  # to be rid of one range, and one of so many more, so that the folder is not looked through for each
DEAD_AFTER = 3600.0  # seconds after which what was being fetched has lost its fetcher
PART = ".part"  # behind the name of what is being fetched; locked by whoever fetches it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """``folder`` is this machine's own (not a network disk); ``size`` in bytes bounds what it holds."""

    folder: str | Path
    size: int = 32 << 30

    def __post_init__(self) -> None:
        expect_folder("cache", self.folder)
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size <= 0:
            raise ConfigError(f"cache: size is {shown(self.size)}; expected a number of bytes")

    @property
    def home(self) -> Path:
        return Path(self.folder).expanduser().absolute()

    def path(self, name: str) -> Path:
        """Return where the range *name* lies once it was fetched."""
        return self.home / "ranges" / name

    def open(self, name: str, size: int, fetch: Callable[[], bytes]) -> FileIO:
        """Return the range *name*, of *size* bytes, as a file; *fetch* gets it where it is not there, or not whole.

        Raises what *fetch* raises, and ``StoreError`` where the folder cannot be written.
        """
        path = self.path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while (found := _opened(path, size)) is None:
                found = self._fetched(path, size, fetch)
                if found is not None:
                    break
        except OSError as error:
            raise StoreError(f"{path.parent}: cannot be used as a cache ({error.strerror})") from error
        return found

    def _fetched(self, path: Path, size: int, fetch: Callable[[], bytes]) -> FileIO | None:
        """Fetch the range, unless another process is found to have done so meanwhile: then None."""
        part = path.with_name(path.name + PART)
        with open(part, "ab") as file, held(file):
            if not _is_at(part, file.fileno()):
                return None
            if path.exists():
                if (cut := path.stat().st_size) == size:
                    return None
                log.warning("%s: has %d bytes, where %d were cached; it is fetched again", path, cut, size)
            data = fetch()
            file.truncate(0)  # what one wrote who died
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            fetched = FileIO(part)
            self._make_room(len(data), part)
            part.rename(path)
        return fetched

    def _make_room(self, more: int, newest: Path) -> None:
        """Count so many bytes *more*, those of *newest*, and keep the bound. A process that dies before they have their
        name has counted too many, which is put right when the folder is looked through."""
        with open(self.home / "ranges.bytes", "a+") as file, held(file):
            file.seek(0)
            said = file.read()
            total = int(said) + more if said.isdecimal() else self.size + 1
            if total > self.size:
                total = self._trimmed(newest)
            file.truncate(0)
            file.write(f"{total}")

    def _trimmed(self, newest: Path) -> int:
        """Remove the ranges that were not used for longest; whoever has one open keeps it. Return the bytes left."""
        found = []
        for entry in os.scandir(newest.parent):
            with suppress(FileNotFoundError):
                found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        total = sum(size for _, size, _ in found)
        spare = len(found) // SLACK if total > self.size else 0
        for moment, size, path in sorted(found):
            if total <= self.size:
                if not spare:
                    break
                spare -= 1
            being_fetched = path.endswith(PART) and time.time() - moment / 1e9 < DEAD_AFTER
            if path != str(newest) and not being_fetched:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                total -= size
        return total


def _opened(path: Path, size: int) -> FileIO | None:
    try:
        file = FileIO(path)
    except FileNotFoundError:
        return None
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        return None
    os.utime(file.fileno())  # used now; the time of access is often not kept
    return file


def _is_at(path: Path, descriptor: int) -> bool:
    """Is *path* still the file that was opened, or was it renamed or removed while its lock was waited for?"""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
