"""Ray that cannot be joined is refused within seconds, in a line that says what to do."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.cluster.on_ray import joining
from pipeline.errors import ConfigError


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def web() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_listens_and_is_no_ray(silent: str, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "PATIENCE", 2.0)
    began = time.monotonic()
    for address in (silent, web, "127.0.0.1:9", "no-such-host.invalid:6379"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConfigError, match=rf"RAY_ADDRESS={address}: no Ray answers there") as caught:
            joining.head()
        assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 60, "Ray itself takes minutes for each"


@pytest.mark.parametrize("address", ["head", "ray://127.0.0.1:10001", "http://127.0.0.1:8265", "10.0.0.1:", ":6379"])
def test_addresses_of_another_form(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match="expected HOST:PORT of a Ray head"):
        joining.head()


def test_a_head_that_died_is_not_waited_for(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray start` leaves its address in a file, which outlives it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("127.0.0.1:9")
    assert joining.head() is None, "so one is started"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ConfigError, match="RAY_ADDRESS=auto: no Ray"):
        joining.head()
