"""Before any work: does the storage do what a commit asks of it? See ``commit`` for why each of these must hold."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.corpus import layout
from pipeline.corpus.local import TEMPORARY
from pipeline.corpus.stores import Full, Refused, Store, create_or_read
from pipeline.errors import StoreError
from pipeline.paths import Location


def check_writable(store: Store) -> None:
    """Do with small objects all that a commit does, and leave nothing behind.

    Raises ``StoreError`` of one line for storage that cannot be written or lacks what is needed, and names that. Some
    stores take a conditional request and ignore the condition: two runs would both believe that a shard is theirs.
    """
    folder = f"{layout.ATTEMPTS}/probe-{secrets.token_hex(8)}"
    first, second = secrets.token_bytes(16), secrets.token_bytes(16)
    written, created, copied = f"{folder}/written", f"{folder}/created", f"{folder}/copied"
    store.write(written, first)  # what fails here is told by the store: it cannot be written at all

    def copy() -> bytes:
        store.copy(written, copied)
        return store.read(copied)

    def delete() -> bool:
        store.delete(created)
        return store.exists(created)

    def delete_several() -> int:
        store.delete_tree(folder)
        return sum(1 for _ in store.list(folder))

    several = " (on S3 by DeleteObjects, which takes several in one request)"
    create = "create an object only if there is none (If-None-Match; on disk, a hard link)"
    try:
        _expect(store, "read what was just written", lambda: store.read(written), first)
        _expect(store, "read a part of an object", lambda: store.read_range(written, 4, 8), first[4:12])
        _expect(store, create, lambda: create_or_read(store, created, first), first)
        _expect(store, create, lambda: create_or_read(store, created, second), first)
        _expect(store, create, lambda: create_or_read(store, written, second), first)
        _expect(store, create, lambda: (store.read(created), store.read(written)), (first, first))
        _expect(store, "copy an object", copy, first)
        names = [copied, created, written]
        _expect(store, "list what was just written", lambda: [entry.path for entry in store.list(folder)], names)
        _expect(store, f"delete objects{several}", delete, False)
        _expect(store, f"delete objects{several}", delete_several, 0)
    except StoreError:
        with contextlib.suppress(StoreError):
            store.delete_tree(folder)
        raise


def _expect(store: Store, what: str, ask: Callable[[], Any], expected: Any) -> None:
    """Raise ``StoreError`` unless the store does *what*; one that is only busy says so itself."""
    lacks = f"{store.url}: this storage does not {what}, and no corpus can be written without"
    try:
        got = ask()
    except Full:
        raise
    except Refused as error:
        raise Refused(f"{lacks}: {error}") from error
    except FileNotFoundError as error:
        raise Refused(f"{lacks}: {error} is not there") from error
    if got != expected:
        raise Refused(lacks)


@contextlib.contextmanager
def leaving_no_folder(place: Location) -> Iterator[None]:
    """Remove what is an empty folder on disk afterwards and was not there before, of the corpus at *place*, of its
    evidence and above."""
    absent: list[Path] = []
    if place.on_disk:
        for root in (Path(place.path), Path(place.evidence.path)):
            made = (root / layout.ATTEMPTS, root / TEMPORARY, root, *root.parents)
            absent += [folder for folder in made if not folder.exists()]
    try:
        yield
    finally:
        for folder in absent:
            with contextlib.suppress(OSError):
                folder.rmdir()
