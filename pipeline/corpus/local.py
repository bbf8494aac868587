"""A folder on local or shared disk as a Store: atomic, fsynced, create-if-absent.

obstore's own local store is not used because it does not fsync. New bytes are first written to ``.tmp/`` under the
root (same file system, outside every glob), fsynced, and then linked or renamed into place; the folder is fsynced
last. A crash leaves at most a file in ``.tmp/``, which no listing shows and ``sweep`` removes.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Set
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.corpus.stores import Entry, Full, Refused

TEMPORARY = ".tmp"
DEAD_AFTER = 3600.0  # seconds without a change after which a temporary file of another host has lost its writer
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # it takes nothing more, whatever it is
_REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted (a file system without hard links, or a protected file)",
    errno.EOPNOTSUPP: "not supported (a file system without hard links)",
    errno.ENOSYS: "not implemented (a file system without hard links)",
    errno.EMLINK: "the file system takes no further hard link to a file",
    errno.EXDEV: "lies on another file system than the rest; expected one for all folders of a corpus",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "disk quota exceeded",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "is a folder; expected a file",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.ENAMETOOLONG: "a name in the path is too long",
    errno.ELOOP: "too many symbolic links in the path",
}


class LocalStore:
    """See ``stores.Store``. The root is created by the first write."""

    copy_limit: int | None = None

    def __init__(self, root: str | Path):
        self.root = Path(root).absolute()
        self.url = str(self.root)

    def read(self, path: str) -> bytes:
        with self._errors(path):
            return (self.root / path).read_bytes()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        with self._errors(path), open(self.root / path, "rb") as file:
            file.seek(start)
            return file.read(length)

    def opened(self, path: str) -> FileIO:
        """Open a file for whoever reads many ranges of it."""
        with self._errors(path):
            return FileIO(self.root / path)

    def write(self, path: str, data: bytes | Path) -> None:
        with self._errors(path, makes_folders=True), self._temporary(data) as temporary:
            self._folder(path)
            os.replace(temporary, self.root / path)
            self._sync_folder(path)

    def create(self, path: str, data: bytes) -> bool:
        with self._errors(path, makes_folders=True), self._temporary(data) as temporary:
            self._folder(path)
            try:
                os.link(temporary, self.root / path)  # fails if the name is taken; never shows part of the bytes
            except FileExistsError:
                return False
            self._sync_folder(path)
            return True

    def copy(self, source: str, target: str) -> None:
        with self._errors(source), self._temporary(None) as temporary:
            if not temporary.parent.is_dir():
                temporary.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.root / source, temporary)
            with self._errors(target):
                self._folder(target)
                # Where both names are links to one file already, rename does nothing and leaves the temporary name.
                os.replace(temporary, self.root / target)
                self._sync_folder(target)

    def delete(self, path: str) -> None:
        with self._errors(path), contextlib.suppress(FileNotFoundError):
            (self.root / path).unlink()

    def delete_tree(self, prefix: str, keep: Set[str] = frozenset()) -> int:
        count = sum(entry.path not in keep for entry in self.list(prefix))
        folder = self.root / prefix
        with self._errors(prefix):
            if not keep:
                _remove(folder)
            elif folder.is_dir():
                for entry in folder.iterdir():
                    if entry.relative_to(self.root).as_posix() not in keep:
                        _remove(entry)
        return count

    def list(self, prefix: str = "") -> Iterator[Entry]:
        with self._errors(prefix):
            yield from self._walk(self.root / prefix)

    def exists(self, path: str) -> bool:
        with self._errors(path):
            return (self.root / path).is_file()

    def size(self, path: str) -> int:
        with self._errors(path):
            return (self.root / path).stat().st_size

    def sweep(self) -> None:
        with self._errors(TEMPORARY), contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.root / TEMPORARY):
                name = re.fullmatch(r"(.+)-(\d+)-[0-9a-f]+", entry.name)
                if name is None:  # of somebody else: a network file system keeps there what is deleted but open
                    continue
                with contextlib.suppress(FileNotFoundError):
                    dead = name[1] == socket.gethostname() and not _alive(int(name[2]))
                    if dead or time.time() - entry.stat().st_ctime > DEAD_AFTER:
                        os.unlink(entry.path)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name + "/" if e.is_dir() else e.name)
        except FileNotFoundError:  # never made, or removed while we walk: then nothing is in it
            return
        for entry in entries:
            if entry.is_dir():
                if entry.name != TEMPORARY:
                    yield from self._walk(Path(entry.path))
                continue
            with contextlib.suppress(FileNotFoundError):
                yield Entry(Path(entry.path).relative_to(self.root).as_posix(), entry.stat().st_size)

    def _folder(self, path: str) -> None:
        """Create the folder of *path* and fsync the names of all folders that were new."""
        folder, missing = (self.root / path).parent, []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _fsync(new.parent)

    def _sync_folder(self, path: str) -> None:
        _fsync((self.root / path).parent)

    @contextlib.contextmanager
    def _temporary(self, data: bytes | Path | None) -> Iterator[Path]:
        """Yield the path of a fsynced temporary file with *data*, or a free name for None; gone afterwards."""
        path = self.root / TEMPORARY / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            if data is not None:
                with _open_new(path) as file:
                    if isinstance(data, Path):
                        with open(data, "rb") as source:
                            shutil.copyfileobj(source, file, 1 << 22)
                    else:
                        file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self, path: str, makes_folders: bool = False) -> Iterator[None]:
        """Turn the system errors that a user has to mend into one line; others, as I/O errors, stay what they are."""
        try:
            yield
        except FileNotFoundError as error:
            if makes_folders and not self.root.is_dir():  # under /proc, say
                raise Refused(f"{self.root}: no folder can be made there") from error
            raise
        except OSError as error:
            if error.errno not in _REASONS:
                raise
            kind = Full if error.errno in FULL else Refused
            raise kind(f"{self.root / path}: {_REASONS[error.errno]}") from error


def _open_new(path: Path) -> BinaryIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return open(path, "xb")
        except FileNotFoundError:  # a purge of the evidence took the folder away in between
            continue


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_symlink() and path.is_dir():
        raise Refused(f"{path}: is a link, and what lies behind it is not deleted; delete {path.resolve()} and it")
    if path.is_dir():
        shutil.rmtree(path, onerror=_ignore_missing)  # another worker may be deleting the same attempt
    else:
        path.unlink(missing_ok=True)


def _ignore_missing(_function: object, _path: object, info: tuple[Any, BaseException, Any]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
