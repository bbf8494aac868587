"""A cache of the hub that holds what a test puts there, and a hub on loopback that gives one answer to everything."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http


def use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let *cache* be the hub's cache, which is all there is of the hub: tests are offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def put(cache: Path, model: str, revision: str, class_name: str) -> None:
    """Put the index of a *model* (owner/name) at *revision*, a branch, a tag or a commit, into *cache*."""
    put_file(cache, model, revision, "model_index.json", json.dumps({"_class_name": class_name}).encode())


def put_file(cache: Path, model: str, revision: str, name: str, data: bytes) -> Path:
    """Put one file of a *model* at *revision* into *cache*, as if it alone had been fetched; return its path."""
    folder = cache / f"models--{model.replace('/', '--')}"
    commit = hashlib.sha1(revision.encode()).hexdigest()
    file = folder / "snapshots" / commit / name
    for path, content in ((folder / "refs" / revision, commit.encode()), (file, data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return file


@contextmanager
def answering(status: int, monkeypatch: pytest.MonkeyPatch, **headers: str) -> Iterator[None]:
    """Go online to a hub that answers every request with this HTTP status and these headers ("_" for "-")."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    online(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def online(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go online, to a hub at *endpoint*."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # between the library's tries
