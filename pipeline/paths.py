"""Where a corpus lies: the one place that reads what a user wrote for it, and says where its evidence lies.

A location is read exactly, on every store: behind ``s3://bucket/`` no character means anything but itself (``#``, ``?``
and ``%20`` are parts of a name, not of a URL), only slashes divide. On disk links are followed, as ``cd -P`` does, so
that ``.``, ``PATH/.``, ``../PATH`` and a link to PATH are one location with one evidence. Nothing but a link is looked
up, so a location may be asked for before anything is there. Knows nothing of stores, corpora or configs.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import StoreError, nearest

SCHEMES = ("s3", "gs", "az")  # of object stores; everything else is a folder, with or without file://
EVIDENCE = ".evidence"  # behind a corpus's own name
_BUCKET = re.compile(r"[\w.$-]+", re.ASCII)  # wider than any store's rule; but no "#", "?", "@" or ":"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class LocationError(StoreError):
    """What cannot be the location of a corpus. ``reason`` is the message without what was written."""

    def __init__(self, written: object, reason: str):
        super().__init__(written, reason)  # as they are, so that it can be unpickled
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.reason}"


@dataclass(frozen=True)
class Location:
    """A folder: on disk its absolute path, links followed (``scheme`` and ``bucket`` are empty); in a bucket its name,
    without slashes at the ends. ``str`` gives what ``locate`` reads as the same location again."""

    path: str
    scheme: str = ""
    bucket: str = ""

    def __str__(self) -> str:
        if self.on_disk:
            return self.path
        return f"{self.scheme}://{self.bucket}/{self.path}" if self.path else f"{self.scheme}://{self.bucket}"

    @property
    def on_disk(self) -> bool:
        return not self.scheme

    @property
    def name(self) -> str:
        """The last part; ``""`` for the root of a disk or a bucket."""
        return self.path.rpartition("/")[2]

    @property
    def evidence(self) -> "Location":
        """The folder beside this one that is its evidence. Raises ``LocationError`` where it has no name."""
        if not self.name:
            raise LocationError(self, f"expected a folder's name, because its evidence lies in NAME{EVIDENCE}")
        return replace(self, path=self.path + EVIDENCE)

    @property
    def parent(self) -> "Location":
        """The folder that this one lies in; a root lies in itself."""
        head = self.path.rpartition("/")[0]
        return replace(self, path=head or ("/" if self.on_disk else ""))


def locate(written: str | Path | Location, folder: str | Path | None = None) -> Location:
    """Return the location of what a user wrote: a path, ``file:///PATH``, or ``s3://``, ``gs://``, ``az://``
    ``BUCKET/NAME``. A relative path is relative to *folder*, or else to the working directory.

    Raises ``LocationError`` for an unknown scheme, and for what no store can hold (see ``_in_bucket``).
    """
    if isinstance(written, Location):
        return written
    text = str(written)
    scheme, rest = split_scheme(text)
    if scheme in SCHEMES:
        return _in_bucket(text, scheme, rest)
    if scheme == "file":
        if not rest.startswith("/"):
            raise LocationError(text, "expected file:///FOLDER, an absolute path")
        text = rest
    elif scheme:
        known = ", ".join(f"{s}://" for s in SCHEMES)
        hint = nearest(scheme, SCHEMES)
        raise LocationError(text, f"unknown kind of storage {scheme!r}{hint}; expected a folder or one of {known}")
    return Location(_on_disk(text, folder))


def folder_on_disk(written: str | Path) -> Path:
    """Return what a user wrote for a folder that no bucket can hold. Raises ``LocationError``."""
    location = locate(written)
    if not location.on_disk:
        raise LocationError(written, "expected a folder on disk; only a corpus can lie in a bucket")
    return Path(location.path)


def split_scheme(written: str) -> tuple[str, str]:
    """Return the scheme of a URL and what stands behind ``://``; of a path ``""`` and the path."""
    url = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", written)
    return (url[1], written[url.end() :]) if url else ("", written)


def read_path(written: str, folder: str | Path) -> str:
    """Return where lies what is to be read: a URL as it is; a path whole, from *folder* where it is relative."""
    if split_scheme(written)[0]:
        return written
    return os.path.abspath(os.path.join(os.path.expanduser(folder), os.path.expanduser(written)))


def is_hub_id(written: str) -> bool:
    """Has *written* the form of a name on the hub, owner/name? So has ``models/mine``; ``./models/mine`` has not."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", written) is not None


def is_relative(written: str) -> bool:
    """Does it depend on the working directory where *written* lies?"""
    return not split_scheme(written)[0] and not os.path.isabs(os.path.expanduser(written))


def _in_bucket(written: str, scheme: str, rest: str) -> Location:
    """Only ``.``, ``..`` and slashes at the ends are not taken as they stand: no client can name such objects."""
    bucket, _, path = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise LocationError(written, f"expected {scheme}://BUCKET/FOLDER")
    if "//" in path.rstrip("/") or path.startswith("/"):
        raise LocationError(written, "has an empty name between two slashes; expected one slash")
    if _CONTROL.search(path):
        raise LocationError(ascii(written), "has a control character in it; expected text alone")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise LocationError(ascii(written), "is not Unicode, and names in a bucket are") from None
    names: list[str] = []
    for name in path.rstrip("/").split("/"):
        if name == "..":
            if not names:
                raise LocationError(written, "leads out of its bucket")
            names.pop()
        elif name not in ("", "."):
            names.append(name)
    return Location("/".join(names), scheme, bucket)


def _on_disk(written: str, folder: str | Path | None) -> str:
    if "\0" in written:
        raise LocationError(ascii(written), "has a control character in it that no path can hold")
    path = os.path.expanduser(written)
    if path.startswith("~") and path == written:
        user = written.partition("/")[0]
        raise LocationError(written, f"no home folder is known of {user!r}; write ./{user} for a folder of that name")
    try:
        return os.path.realpath(os.path.join(os.path.expanduser(folder or ""), path))
    except FileNotFoundError:
        raise LocationError(written, "is relative to the working directory, which has been deleted") from None
