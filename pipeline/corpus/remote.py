"""An object store (S3, Google Cloud Storage, Azure) as a Store, through obstore.

Every request has a finite timeout: on a dead socket an unlimited one would hold its shard for ever. All requests but
``create`` may be sent again by the client; a create that was answered 5xx or not at all may have taken effect, and
sent again it would be refused because of itself.

Storage that has answered before is waited for, for ``RETRY_TIMEOUT``: it is busy. One that has never answered is rather
a wrong endpoint, and whoever mistyped it should hear so within seconds.
"""

import contextlib
import re
from collections.abc import Iterator, Set
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from pipeline.corpus.stores import Entry
from pipeline.errors import StoreError, nearest
from pipeline.paths import Location, locate

CONNECT_TIMEOUT = timedelta(seconds=30)
REQUEST_TIMEOUT = timedelta(seconds=120)  # of one request: a part of a multipart upload, or a server-side copy
FIRST_RETRIES = 5  # until it has answered once: 2 s, 10 s at most
RETRIES = 1000  # afterwards: never reached (34 fit into RETRY_TIMEOUT, 76 at most), so that the time rules
RETRY_TIMEOUT = timedelta(seconds=180)
# obstore waits a random time up to ``base`` times the last one. With its own base of 2 that hardly grows: its median
# after ten waits is still below half a second, and hundreds of workers would not leave alone what is busy.
BACKOFF: Any = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 3}
PART = 16 << 20  # bytes of a multipart part: S3 takes 10,000 parts, so tars up to 160 GB
S3_COPY_LIMIT = 5 << 30  # bytes that S3 copies in one request, and obstore makes no copy of several
CONCURRENCY = 4  # parts under way at once
# Built from bucket and prefix: as a URL a name with "#" or "?" would be cut there, and "%20" would be a blank.
STORES: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
# Options of the HTTP client. Among the store's they end obstore 0.12 in a Rust panic, "Expected config prefix".
CLIENT_OPTIONS = {
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "timeout",
    "user_agent",
}
SOME_OPTIONS = {  # of the stores: those that are often given, to name the nearest of a misspelt one
    "access_key_id",
    "account_key",
    "account_name",
    "endpoint",
    "region",
    "sas_key",
    "secret_access_key",
    "service_account",
    "session_token",
    "skip_signature",
    "virtual_hosted_style_request",
}


class ObjectStore:
    """See ``stores.Store``. Picklable: it holds only its location and options and connects on first use."""

    def __init__(self, place: str | Location, options: dict[str, str]):
        self._location = locate(place)
        self.url = str(self._location)
        self._options = options
        self._answered = False
        self.copy_limit = S3_COPY_LIMIT if self._location.scheme == "s3" else None
        self._connect()

    def _connect(self) -> None:
        options, given, endpoint = {}, {}, ""
        for key, value in self._options.items():
            name = re.sub("^(aws|google|azure)_", "", key.lower())
            if name in CLIENT_OPTIONS:
                given[name] = value
            else:
                options[key] = value
            if name in ("endpoint", "endpoint_url"):
                endpoint = value
        client: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "timeout": REQUEST_TIMEOUT}
        if endpoint.startswith("http://"):  # said outright it would override the environment's AWS_ALLOW_HTTP
            client["allow_http"] = True
        client |= given

        def connect(retries: int) -> Any:
            retry: Any = {"max_retries": retries, "retry_timeout": RETRY_TIMEOUT, "backoff": BACKOFF}
            return STORES[self._location.scheme](
                self._location.bucket,
                prefix=self._location.path or None,
                config=options or None,
                client_options=client,
                retry_config=retry,
            )

        try:
            self._first, self._patient, self._once = connect(FIRST_RETRIES), connect(RETRIES), connect(0)
        except (exceptions.BaseError, ValueError, TypeError) as error:
            raise StoreError(f"{self.url}: output.storage_options{self._blamed(_line(error))}") from error

    def _blamed(self, message: str) -> str:
        """Return which option the client's *message* is about, and the message."""
        if unknown := re.match("Configuration key: '(.*)' is not valid", message):
            (key,) = unknown.groups()
            return f".{key}: {self._location.scheme} has no such option{nearest(key, CLIENT_OPTIONS | SOME_OPTIONS)}"
        at = next((f".{key}" for key, value in self._options.items() if f'"{value}"' in message), "")
        form = "; expected a number with its unit, such as 30s" if "Duration" in message else ""
        return f"{at}: {message}{form}"

    @property
    def _store(self) -> Any:
        return self._patient if self._answered else self._first

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self._location, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(self, path: str) -> bytes:
        with self._errors(path):
            return bytes(obstore.get(self._store, path).bytes())

    def read_range(self, path: str, start: int, length: int) -> bytes:
        with self._errors(path):
            return bytes(obstore.get_range(self._store, path, start=start, length=length))

    def write(self, path: str, data: bytes | Path) -> None:
        with self._errors(path, writing=True):
            obstore.put(self._store, path, data, chunk_size=PART, max_concurrency=CONCURRENCY)

    def create(self, path: str, data: bytes) -> bool:
        with self._errors(path, writing=True):
            try:
                obstore.put(self._once, path, data, mode="create")
            except exceptions.AlreadyExistsError:
                return False
            return True

    def copy(self, source: str, target: str) -> None:
        with self._errors(source):
            obstore.copy(self._store, source, target)

    def sweep(self) -> None:
        """Nothing: an upload that was not completed shows nowhere, and a lifecycle rule of the bucket aborts it."""

    def delete(self, path: str) -> None:
        with self._errors(path), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, path)

    def delete_tree(self, prefix: str, keep: Set[str] = frozenset()) -> int:
        paths = [entry.path for entry in self.list(prefix) if entry.path not in keep]
        if prefix and self.exists(prefix):
            paths.append(prefix)
        with self._errors(prefix), contextlib.suppress(FileNotFoundError):
            if paths:
                obstore.delete(self._store, paths)
        return len(paths)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        found: list[Entry] = []
        with self._errors(prefix):
            for chunk in obstore.list(self._store, prefix=prefix.rstrip("/") or None, chunk_size=1000):
                found.extend(Entry(str(meta["path"]), int(meta["size"])) for meta in chunk)
        return iter(sorted(found, key=lambda entry: entry.path))

    def exists(self, path: str) -> bool:
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        with self._errors(path):
            return int(obstore.head(self._store, path)["size"])

    @contextlib.contextmanager
    def _errors(self, path: str, writing: bool = False) -> Iterator[None]:
        try:
            yield
            self._answered = True
        except FileNotFoundError as error:
            self._answered = True
            if writing:  # then what is missing is the bucket
                raise StoreError(f"{self.url}: there is no such bucket or container") from error
            raise FileNotFoundError(f"{self.url}/{path}") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise StoreError(f"{self.url}/{path}: forbidden with these credentials: {_line(error)}") from error
        except (exceptions.BaseError, OSError) as error:
            raise StoreError(f"{self.url}/{path}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """Return the gist of an error of the client, whose messages go on over several lines with debug output."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
