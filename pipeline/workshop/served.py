"""A page for the person at this machine, and what it sends back: served on 127.0.0.1 alone.

Whoever can open web pages here might be made to send requests here too, so nothing is answered but to this very origin
(which a page elsewhere, or a name that was bound anew to this address, is not) under a path that holds a token which
only the address that was printed knows.
"""

import hmac
import json
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.errors import LacunaError

ADDRESS = "127.0.0.1"
MOST = 4 << 20  # bytes that a page may send
PATIENCE = 30.0  # seconds for a request to arrive
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class PageServer:
    """Serves the page *html*; *save*, where given, gets what the page sends, parsed, and returns what is to be said."""

    def __init__(self, html: Callable[[], str], save: Callable[[Any], str] | None):
        self.html, self.save = html, save
        self.token = secrets.token_urlsafe(24)
        self._server = ThreadingHTTPServer((ADDRESS, 0), self._handler())
        self._server.daemon_threads = True
        self.host = f"{ADDRESS}:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/{self.token}/"

    def serve(self) -> None:
        """Answer until ``close``, or whatever interrupts."""
        try:
            self._server.serve_forever(poll_interval=0.1)
        finally:
            self._server.server_close()

    def close(self) -> None:
        self._server.shutdown()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            timeout = PATIENCE
            server_version, sys_version = "lacuna", ""

            def do_GET(self) -> None:
                if self._is_for_us("/"):
                    self._answer(HTTPStatus.OK, page.html(), "text/html")

            def do_POST(self) -> None:
                self.close_connection = True  # what is refused is not read to its end
                if not self._is_for_us("/save"):
                    return
                if self.headers.get("Origin") != f"http://{page.host}":
                    self._say(HTTPStatus.FORBIDDEN, "is not this page's own request")
                elif self.headers.get_content_type() != "application/json":
                    self._say(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
                elif page.save is None:
                    self._say(HTTPStatus.METHOD_NOT_ALLOWED, "nothing can be saved: no --write was given")
                else:
                    self._save(page.save)

            def _save(self, save: Callable[[Any], str]) -> None:
                length = self.headers.get("Content-Length", "")
                if not length.isdecimal():
                    self._say(HTTPStatus.LENGTH_REQUIRED, "expected a length")
                elif int(length) > MOST:
                    self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MOST:,} bytes")
                else:
                    try:
                        self._say(HTTPStatus.OK, save(json.loads(self.rfile.read(int(length)))))
                    except (ValueError, RecursionError):
                        self._say(HTTPStatus.BAD_REQUEST, "is no JSON")
                    except LacunaError as error:
                        self._say(HTTPStatus.BAD_REQUEST, str(error))

            def _is_for_us(self, path: str) -> bool:
                if self.headers.get_all("Host") != [page.host]:
                    self._say(HTTPStatus.MISDIRECTED_REQUEST, "is for another host")
                    return False
                if not hmac.compare_digest(self.path.encode(), f"/{page.token}{path}".encode()):
                    self._say(HTTPStatus.NOT_FOUND, "nothing is here; open the address that lacuna printed")
                    return False
                return True

            def _say(self, status: HTTPStatus, text: str) -> None:
                self._answer(status, json.dumps({"said": text}), "application/json")

            def _answer(self, status: HTTPStatus, text: str, kind: str) -> None:
                data = text.encode()
                self.send_response(status)
                for name, value in HEADERS.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the path holds the token."""

        return Handler
