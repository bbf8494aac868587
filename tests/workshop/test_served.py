"""A page is served to the person at this machine, and to no other page, name or path."""

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.workshop.served import MOST, PageServer


class Served:
    """A server at work, and what was saved."""

    def __init__(self) -> None:
        self.saved: list[Any] = []
        self.server = PageServer(lambda: "<p>café</p>", self.save)

    def save(self, choices: Any) -> str:
        if choices == "bad":
            raise ConfigError("choices: expected a list")
        self.saved.append(choices)
        return "saved"

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str, dict[str, str]]:
        """Return status, text and headers. "_" in a header's name is "-"; those of the page itself are the default."""
        host = self.server.host
        sent = {"Host": host, "Origin": f"http://{host}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        for name, value in ({"Content-Length": str(len(body))} | sent).items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    thread = threading.Thread(target=found.server.serve)
    thread.start()
    yield found
    found.server.close()
    thread.join()


def test_the_page_is_where_it_is_said_to_be_and_loads_nothing_from_elsewhere(served: Served) -> None:
    token = served.server.token
    assert served.server.url == f"http://{served.server.host}/{token}/"
    assert served.server.host.startswith("127.0.0.1:")
    status, text, headers = served.ask("GET", f"/{token}/")
    assert (status, text) == (200, "<p>café</p>")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert not any(name.lower().startswith("access-control") for name in headers)


def test_what_the_page_sends_is_saved_and_what_is_wrong_in_it_is_told(served: Served) -> None:
    path = f"/{served.server.token}/save"
    assert served.ask("POST", path, json.dumps([{"word": "Kätzchen"}]).encode())[:2] == (200, '{"said": "saved"}')
    assert served.saved == [[{"word": "Kätzchen"}]]
    assert served.ask("POST", path, b'"bad"')[:2] == (400, '{"said": "choices: expected a list"}')
    assert served.ask("POST", path, b"{")[0] == 400
    assert served.ask("POST", path, b"[" * 100_000)[0] == 400
    assert served.ask("POST", path, b"\xff")[0] == 400
    assert len(served.saved) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "https://127.0.0.1"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost"}, 421),
        ({"Host": ""}, 421),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Length": str(MOST + 1)}, 413),
        ({"Content_Length": "-1"}, 411),
    ],
)
def test_requests_of_other_pages_save_nothing(served: Served, headers: dict[str, str], status: int) -> None:
    assert served.ask("POST", f"/{served.server.token}/save", b"[]", **headers)[0] == status
    assert served.saved == []


@pytest.mark.parametrize("path", ["/", "/save", "/x/", "/{token}", "/{token}x/", "/{token}/../{token}/"])
def test_nothing_is_under_another_path(served: Served, path: str) -> None:
    path = path.format(token=served.server.token)
    assert served.ask("GET", path)[0] == 404
    assert served.ask("POST", path, b"[]")[0] == 404
    assert served.ask("GET", f"/{served.server.token}/", Host="evil.example")[0] == 421, "a name bound to this address"
    assert served.saved == []


def test_a_page_that_saves_nothing_refuses_to() -> None:
    served = Served()
    served.server.save = None
    thread = threading.Thread(target=served.server.serve)
    thread.start()
    assert served.ask("POST", f"/{served.server.token}/save", b"[]")[0] == 405
    served.server.close()
    thread.join()
