"""What the corpus asks of storage: a few operations on objects named by relative paths with forward slashes.

Knows nothing of shards or commits. Two kinds stand behind it: a local folder (``local.py``) and an object store
(``remote.py``). Every operation is durable and atomic when it returns: a reader sees an object whole or not at all.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pipeline.errors import StoreError

PAUSES = (2.0, 8.0, 30.0)  # seconds
# Seconds before a create is sent again, each time after a read has shown that the object is not there: the three
# minutes for which everything else is waited for (see ``remote``), since no client asks again for a create.
CREATE_PAUSES = (1.0, 2.0, 4.0, 8.0, *11 * (15.0,))

PATIENT: ContextVar[bool] = ContextVar("patient", default=True)

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One object of a listing; ``size`` in bytes."""

    path: str
    size: int


class Refused(StoreError):
    """The store has said no (forbidden, full, read-only, not implemented): asking again would not change it."""


class Full(Refused):
    """It takes nothing more, whatever it is: full, over its quota, or read-only."""


class Store(Protocol):
    """Objects under one root, which ``url`` names whole. A missing object is ``FileNotFoundError``; whatever the user
    or operator has to mend (unreachable, forbidden, read-only, full) is a ``StoreError`` of one line.
    """

    url: str
    copy_limit: int | None  # bytes of the largest object that ``copy`` takes; None: any

    def read(self, path: str) -> bytes: ...

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return up to *length* bytes from *start*; fewer only at the object's end."""

    def write(self, path: str, data: bytes | Path) -> None:
        """Write or replace an object, from memory or from a local file."""

    def create(self, path: str, data: bytes) -> bool:
        """Write the object only if none is there; return False where there is one.

        The request is sent once. Where its answer is lost a ``StoreError`` is raised and the object may or may not
        be there, or may still arrive: ``create_or_read`` reads back.
        """

    def copy(self, source: str, target: str) -> None:
        """Make *target* the same bytes as *source*, replacing it, without moving them through this machine."""

    def sweep(self) -> None:
        """Remove what writers that died left half written. Whoever is still writing is not disturbed."""

    def delete(self, path: str) -> None:
        """Delete one object; one that is not there is no error."""

    def delete_tree(self, prefix: str, keep: Set[str] = frozenset()) -> int:
        """Delete all objects under the folder *prefix* (``""``: all there is) but those in *keep*, which lie at its
        top; return how many were deleted."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the objects under the folder *prefix*, at any depth, sorted by path."""

    def exists(self, path: str) -> bool: ...

    def size(self, path: str) -> int: ...


@contextlib.contextmanager
def hastily() -> Iterator[None]:
    """Within it, and on this thread, storage that is busy is given up within seconds, as one that never answered is."""
    before = PATIENT.set(False)
    try:
        yield
    finally:
        PATIENT.reset(before)


def patiently(ask: Callable[[], T], pauses: Sequence[float] = PAUSES) -> T:
    """Return what *ask* returns; where that is a ``StoreError`` but not ``Refused``, ask again after each of *pauses*,
    in seconds.

    For what has not heard from its storage yet, which a store itself gives little time (see ``remote``).
    """
    for pause in pauses:
        try:
            return ask()
        except Refused:
            raise
        except StoreError:
            time.sleep(pause)
    return ask()


def create_or_read(store: Store, path: str, data: bytes) -> bytes:
    """Create the object if there is none; return what stands.

    A create whose answer is lost is followed by a read; only where nothing is there is it sent again.
    """
    lost: StoreError | None = None
    for pause in (0.0, *CREATE_PAUSES):
        time.sleep(pause)
        try:
            if store.create(path, data):
                return data
        except StoreError as error:
            lost = error
        with contextlib.suppress(FileNotFoundError):
            return store.read(path)
        if isinstance(lost, Refused):
            raise lost
    raise StoreError(f"{store.url}/{path}: could not be created: {lost or 'neither there nor created'}")
