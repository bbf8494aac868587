"""A server of a stated latency and rate, which reads as S3 does: what slow storage is like, on one machine."""

import multiprocessing
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

URL = "s3://bucket/corpus"  # of what is served
_KEYS = {"access_key_id": "bench", "secret_access_key": "bench", "region": "us-east-1"}


@dataclass(frozen=True)
class Server:
    """``counted`` are requests for tars since it was last reset, and their bytes."""

    endpoint: str
    counted: Any

    @property
    def options(self) -> dict[str, str]:
        return {**_KEYS, "endpoint": self.endpoint}


@contextmanager
def serving(root: Path, rate: float, latency: float) -> Iterator[Server]:
    """Serve the corpus at *root* from a process of its own (see ``serve``)."""
    counted, port = multiprocessing.Array("q", [0, 0]), multiprocessing.Value("i", 0)
    process = multiprocessing.get_context("fork").Process(
        target=serve, args=(root, rate, latency, counted, port), daemon=True
    )
    process.start()
    try:
        while not port.value:
            time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{port.value}", counted)
    finally:
        process.terminate()


def serve(root: Path, rate: float, latency: float, counted: Any, port: Any) -> None:
    """Serve the corpus at *root* as ``s3://bucket/corpus``: reads and listings, each after *latency* seconds, all
    together at *rate* bytes a second."""
    free, lock = [0.0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            time.sleep(latency)
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            if "list-type" in query:
                self.answer(200, listing(root, query["prefix"][0].removeprefix("corpus/")), {})
                return
            file = root / unquote(url.path).removeprefix("/bucket/corpus/")
            if not file.is_file():
                self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>", {})
                return
            size = file.stat().st_size
            start, stop, status = 0, size, 200
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                start, stop, status = int(wanted[1]), min(size, int(wanted[2] or size - 1) + 1), 206
            with open(file, "rb") as opened:
                opened.seek(start)
                data = opened.read(stop - start)
            if file.suffix == ".tar":
                with lock:
                    counted[0] += 1
                    counted[1] += len(data)
            self.answer(status, data, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if status == 206 else {})

        def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            more = {"ETag": '"1"', "Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT", "Content-Length": str(len(data))}
            for name, value in (headers | more).items():
                self.send_header(name, value)
            self.end_headers()
            view = memoryview(data if self.command != "HEAD" else b"")
            for at in range(0, len(view), 1 << 18):
                part = view[at : at + (1 << 18)]
                with lock:
                    free[0] = max(free[0], time.monotonic()) + len(part) / rate
                    pause = free[0] - time.monotonic()
                time.sleep(max(0.0, pause))
                self.wfile.write(part)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    port.value = server.server_port
    server.serve_forever()


def listing(root: Path, prefix: str) -> bytes:
    files = sorted(file for file in (root / prefix).rglob("*") if file.is_file()) if (root / prefix).is_dir() else []
    contents = "".join(
        f"<Contents><Key>corpus/{file.relative_to(root)}</Key><Size>{file.stat().st_size}</Size>"
        "<LastModified>2000-01-01T00:00:00.000Z</LastModified><ETag>1</ETag></Contents>"
        for file in files
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()
