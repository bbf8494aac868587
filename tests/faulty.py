"""An S3 server with faults: moto's, behind one that ignores, refuses, delays or cuts off what it is told to.

What is created in moto's own server of this process is there too: both show one memory.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUSY = (
    "503 Slow Down",
    "<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message><Resource>/b"
    "</Resource><RequestId>17</RequestId></Error>",
)
LACKING = (
    "501 Not Implemented",
    "<?xml version='1.0'?><Error><Code>NotImplemented</Code><Message>A header you provided implies functionality "
    "that is not implemented</Message><RequestId>18</RequestId></Error>",
)


@dataclass
class Request:
    """What a client asks for, in the corpus's words."""

    environ: dict[str, Any]

    @property
    def method(self) -> str:
        return self.environ["REQUEST_METHOD"]

    @property
    def kind(self) -> str:
        """create, write, copy, read, range, size, list, delete or delete_many."""
        query = self.environ.get("QUERY_STRING", "")
        if "HTTP_X_AMZ_COPY_SOURCE" in self.environ:
            return "copy"
        if self.method == "PUT":
            return "create" if "HTTP_IF_NONE_MATCH" in self.environ else "write"
        if self.method == "GET":
            return "list" if "list-type" in query else "range" if "HTTP_RANGE" in self.environ else "read"
        return {"HEAD": "size", "DELETE": "delete", "POST": "delete_many"}[self.method]


@dataclass
class Faulty:
    """The server. Kinds are those of ``Request``, or "any"; counts go down to 0 as faults are met; -1 never ends."""

    endpoint: str = ""
    options: dict[str, str] = field(default_factory=dict)  # with which a store reaches it
    without: frozenset[str] = frozenset()  # kinds that are answered 501
    ignores: frozenset[str] = frozenset()  # create: writes over; range: gives all; delete_many, copy: say they did
    busy: dict[str, int] = field(default_factory=dict)  # kind -> how many are answered 503
    full: tuple[str, str] | None = None  # status and code with which whatever writes is answered
    lost: dict[str, int] = field(default_factory=dict)  # kind -> how many are done, and their answer is lost
    cut: dict[str, int] = field(default_factory=dict)  # kind -> how many answers end in the middle, by a reset
    short: dict[str, int] = field(default_factory=dict)  # kind -> how many answers are half of what they should be
    stale: int = 0  # listings yet to come that show nothing
    asked: list[str] = field(default_factory=list)  # the kind of every request

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        kind = Request(environ).kind
        self.asked.append(kind)
        if kind in self.without:
            return _answer(start, *LACKING)
        if self._spend(self.busy, kind):
            return _answer(start, *BUSY)
        if self.full is not None and kind in ("create", "write", "copy"):
            return _answer(start, self.full[0], f"<Error><Code>{self.full[1]}</Code><Message>Full.</Message></Error>")
        if kind in self.ignores:
            if kind in ("delete", "delete_many", "copy"):
                return _answer(start, "200 OK", "<?xml version='1.0'?><Result></Result>")
            environ.pop({"create": "HTTP_IF_NONE_MATCH", "range": "HTTP_RANGE"}[kind])
        if kind == "list" and self.stale:
            self.stale -= 1
            environ["QUERY_STRING"] += "-nothing-of-that-name"
        answered: dict[str, Any] = {}

        def hold(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            answered.update(status=status, headers=headers)

        body = b"".join(self._moto(environ, hold))
        if self._spend(self.lost, kind):
            start(answered["status"], [])
            return _half(environ, b"")
        if self._spend(self.short, kind):
            body = body[: len(body) // 2]
            answered["headers"] = [(k, v) for k, v in answered["headers"] if k.lower() != "content-length"]
            answered["headers"].append(("Content-Length", str(len(body))))
        start(answered["status"], answered["headers"])
        return _half(environ, body) if self._spend(self.cut, kind) else [body]

    _moto: Any = field(default_factory=lambda: DomainDispatcherApplication(create_backend_app))

    @staticmethod
    def _spend(faults: dict[str, int], kind: str) -> bool:
        left = faults.get(kind, faults.get("any", 0))
        if left > 0:
            faults[kind if kind in faults else "any"] = left - 1
        return left != 0


def _answer(start: Callable[..., Any], status: str, text: str) -> list[bytes]:
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
    return [text.encode()]


def _half(environ: dict[str, Any], body: bytes) -> Iterator[bytes]:
    if body:
        yield body[: len(body) // 2]
    _reset(environ)


def _reset(environ: dict[str, Any]) -> None:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


@contextmanager
def serving() -> Iterator[Faulty]:
    """A server on loopback without a fault yet."""
    faulty = Faulty()
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    faulty.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield faulty
    finally:
        server.shutdown()
        thread.join()
