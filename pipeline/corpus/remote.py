"""An object store (S3, Google Cloud Storage, Azure) as a Store, through obstore.

Every request has a finite timeout: on a dead socket an unlimited one would hold its shard for ever. All requests but
``create`` may be sent again; a create that was answered 5xx or not at all may have taken effect, and sent again it
would be refused because of itself.

Storage that has answered this process before is waited for, for ``RETRY_TIMEOUT``: it is busy. One that never has is
rather a wrong endpoint, and whoever mistyped it should hear so within seconds.
"""

import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Set
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from pipeline.corpus.answers import NO_BUCKET, gist, is_full, is_of_credentials, may_be_asked_again, named_fault
from pipeline.corpus.options import blamed, sort_options
from pipeline.corpus.stores import PATIENT, Entry, Full, Refused
from pipeline.errors import StoreError
from pipeline.paths import Location, locate

CONNECT_TIMEOUT = timedelta(seconds=30)
REQUEST_TIMEOUT = timedelta(seconds=120)  # of one request: a part of a multipart upload, or a server-side copy
RETRY_TIMEOUT = timedelta(seconds=180)
RETRIES = 1000  # of an upload's parts: never reached (34 fit into RETRY_TIMEOUT, 76 at most), so that the time rules
FEW_RETRIES = 5  # by the client itself, of what is asked again from here: 2 s, 10 s at most
FIRST_CONNECT_TIMEOUT = timedelta(seconds=5)  # until it has answered once
FIRST_REQUEST_TIMEOUT = timedelta(seconds=15)  # then only small records are asked for
FIRST_RETRY_TIMEOUT = timedelta(seconds=10)
FIRST_RETRIES = FEW_RETRIES
# obstore waits a random time up to ``base`` times the last one. With its own base of 2 that hardly grows: its median
# after ten waits is still below half a second, and hundreds of workers would not leave alone what is busy.
BACKOFF: Any = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 3}
# Built from bucket and prefix: as a URL a name with "#" or "?" would be cut there, and "%20" would be a blank.
STORES: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
PART = 16 << 20  # bytes of a multipart part: S3 takes 10,000 parts, so tars up to 160 GB
S3_COPY_LIMIT = 5 << 30  # bytes that S3 copies in one request, and obstore makes no copy of several
CONCURRENCY = 4  # parts under way at once
SAID_AFTER = 30.0  # seconds of waiting for busy storage until a line says so, and between two such lines

T = TypeVar("T")
log = logging.getLogger(__name__)
_answered: set[tuple[Any, ...]] = set()  # the buckets that have answered this process, and with which options
_last_said = float("-inf")
_process = 0  # that has asked a store; 0: none yet


class ObjectStore:
    """See ``stores.Store``. Picklable: it holds only its location and options and connects on first use."""

    def __init__(self, place: str | Location, options: dict[str, str]):
        self._location = locate(place)
        self.url = str(self._location)
        self._options = options
        self._key = (self._location.scheme, self._location.bucket, *sorted(options.items()))
        self.copy_limit = S3_COPY_LIMIT if self._location.scheme == "s3" else None
        self._connect()

    def _connect(self) -> None:
        own, http = sort_options(self._location.scheme, self._options)

        def client(retries: int, retry: timedelta, timeout: timedelta, connect: timedelta) -> Any:
            return STORES[self._location.scheme](
                self._location.bucket,
                prefix=self._location.path or None,
                config=own or None,
                client_options={"connect_timeout": connect, "timeout": timeout, **http},
                retry_config={"max_retries": retries, "retry_timeout": retry, "backoff": BACKOFF},
            )

        usual = RETRY_TIMEOUT, REQUEST_TIMEOUT, CONNECT_TIMEOUT
        try:
            self._first = client(FIRST_RETRIES, FIRST_RETRY_TIMEOUT, FIRST_REQUEST_TIMEOUT, FIRST_CONNECT_TIMEOUT)
            self._usual, self._upload, self._once = (client(n, *usual) for n in (FEW_RETRIES, RETRIES, 0))
        except (exceptions.BaseError, ValueError, TypeError) as error:
            why = blamed(self._location.scheme, self._options, gist(error))
            raise StoreError(f"{self.url}: output.storage_options{why}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self._location, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(self, path: str) -> bytes:
        return self._ask(path, lambda client: bytes(obstore.get(client, path).bytes()))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        return self._ask(path, lambda client: bytes(obstore.get_range(client, path, start=start, length=length)))

    def write(self, path: str, data: bytes | Path) -> None:
        def put(client: Any) -> None:
            obstore.put(client, path, data, chunk_size=PART, max_concurrency=CONCURRENCY)

        self._ask(path, put, upload=isinstance(data, Path))

    def create(self, path: str, data: bytes) -> bool:
        self._refuse_after_fork()
        try:
            obstore.put(self._once, path, data, mode="create")
        except exceptions.AlreadyExistsError:
            return False
        except (exceptions.BaseError, OSError) as error:
            raise self._error(path, error) from error
        return True

    def copy(self, source: str, target: str) -> None:
        self._ask(source, lambda client: obstore.copy(client, source, target))

    def sweep(self) -> None:
        """Nothing: an upload that was not completed shows nowhere, and a lifecycle rule of the bucket aborts it."""

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(path, lambda client: obstore.delete(client, path))

    def delete_tree(self, prefix: str, keep: Set[str] = frozenset()) -> int:
        paths = [entry.path for entry in self.list(prefix) if entry.path not in keep]
        if prefix and self.exists(prefix):
            paths.append(prefix)
        with contextlib.suppress(FileNotFoundError):
            if paths:
                self._ask(prefix, lambda client: obstore.delete(client, paths))
        return len(paths)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        def whole(client: Any) -> list[Entry]:
            chunks = obstore.list(client, prefix=prefix.rstrip("/") or None, chunk_size=1000)
            return [Entry(str(meta["path"]), int(meta["size"])) for chunk in chunks for meta in chunk]

        return iter(sorted(self._ask(prefix, whole), key=lambda entry: entry.path))

    def exists(self, path: str) -> bool:
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        return self._ask(path, lambda client: int(obstore.head(client, path)["size"]))

    def _ask(self, path: str, call: Callable[[Any], T], *, upload: bool = False) -> T:
        """Return what *call* does with a client; a call is made again, whole, for as long as the store is waited for.

        Raises ``FileNotFoundError``, or ``StoreError`` with the last answer.
        """
        self._refuse_after_fork()
        pause, longest = (BACKOFF[key].total_seconds() for key in ("init_backoff", "max_backoff"))
        began = time.monotonic()
        while True:
            client = self._first if not self._waits() else self._upload if upload else self._usual
            try:
                answer = call(client)
            except (exceptions.BaseError, OSError) as error:
                problem = self._error(path, error)
                waited = time.monotonic() - began
                patience = RETRY_TIMEOUT.total_seconds() if self._waits() else 0.0
                if isinstance(problem, (Refused, FileNotFoundError)) or waited >= patience:
                    raise problem from error
                _say(f"{problem}; asked again, for {patience:g} s in all", waited)
                time.sleep(random.uniform(pause / 2, pause))
                pause = min(longest, pause * BACKOFF["base"])
            else:
                _answered.add(self._key)
                return answer

    def _refuse_after_fork(self) -> None:
        """The client's threads are not there in a forked process, and it, or a new one, would wait for ever."""
        global _process
        _process = _process or os.getpid()
        if _process != os.getpid():
            raise Refused(
                f"{self.url}: the process that this one was forked from has used an object store, whose client does "
                "not survive a fork; start it by spawn (a DataLoader with multiprocessing_context='spawn')"
            )

    def _waits(self) -> bool:
        return self._key in _answered and PATIENT.get()

    def _error(self, path: str, error: Exception) -> Exception:
        """Return what to raise for an error of the client, and remember that the store is there, where that shows."""
        if may_be_asked_again(error):
            if named_fault(error):  # busy, but nobody else gives its faults such names
                _answered.add(self._key)
            if self._key in _answered or is_of_credentials(error):
                return StoreError(f"{self.url}/{path}: {gist(error)}")
            return StoreError(f"{self.url}/{path}: {gist(error)}; it has not answered yet: is its endpoint right?")
        _answered.add(self._key)
        if any(sign in str(error) for sign in NO_BUCKET):
            return Refused(f"{self.url}: there is no such bucket or container")
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(f"{self.url}/{path}")
        if is_full(error):
            return Full(f"{self.url}/{path}: {gist(error)}")
        if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
            return Refused(f"{self.url}/{path}: forbidden with these credentials: {gist(error)}")
        return Refused(f"{self.url}/{path}: {gist(error)}")


def _say(line: str, waited: float) -> None:
    """Log *line*, but not for a short wait, and not once for each of many requests."""
    global _last_said
    if waited >= SAID_AFTER and time.monotonic() - _last_said >= SAID_AFTER:
        _last_said = time.monotonic()
        log.warning("%s", line)
