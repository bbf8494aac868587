"""A judge that is asked over HTTP: what it says is recorded once, whatever the line between does."""

import base64
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipeline.audit import endpoint
from pipeline.audit.endpoint import ASKED, Endpoint, Unanswered
from pipeline.config import identity, load_config
from pipeline.config.schema import Backend, ConceptConfig, Config, ErasureConfig
from pipeline.config.sections.audit import AuditConfig, DetectorConfig, Policy
from pipeline.corpus import open_store, read_run_record, verify
from pipeline.corpus.manifest import ManifestRow, read_rows
from pipeline.errors import ConfigError, EndpointError, StoreError
from pipeline.run import run
from tests import tiny
from tests.config.conftest import SOUND


class Asking(Endpoint):
    """Sends raw pixels, and takes the number that comes back."""

    def about(self):
        return {"model": self.patiently(lambda: self.send("model"))["model"]}

    def knows(self, term):
        return True

    def threshold(self, term):
        return 0.5

    def question(self, term):
        return f"Does this picture show {' or '.join(term.words)}?"

    def ask(self, picture, question):
        pixels = base64.b64encode(picture.tobytes()).decode()
        return float(self.send("ask", {"pixels": pixels, "shape": picture.shape, "question": question})["yes"])


def says(picture: np.ndarray, question: str) -> float:
    """What the judge says: it knows colours, shapes, and that bright pictures are light."""
    red, green, blue = picture.mean(axis=(0, 1)) / 255
    if "light" in question:
        return float(picture.mean() / 255)
    colour = {"red": red - green - blue, "green": green - red - blue, "blue": blue - red - green}
    for name, more in colour.items():
        if f" {name}?" in question:
            return 0.97 if more > 0 else 0.02
    if " black?" in question:
        return 0.98 if picture.max() == 0 else 0.03
    rows = np.abs(np.diff(picture[:, 0, 0].astype(int))).max() > 0  # stripes run from edge to edge
    return 0.95 if rows == ("stripes" in question) else 0.3


class Judge(BaseHTTPRequestHandler):
    """Answers over HTTP as ``says`` does, unless the server is told otherwise."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"model": self.server.model})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        picture = np.frombuffer(base64.b64decode(asked["pixels"]), np.uint8).reshape(asked["shape"])
        with self.server.lock:
            self.server.requests += 1
            number = self.server.requests
        if number > self.server.last:
            self.answer({"error": "out of memory"}, 503)
        elif self.server.says is None:
            self.answer({"error": "no such key"}, 401)
        elif self.server.fails and number % 10 == 0:
            self.close_connection = True  # without a word
        else:
            if "light" in asked["question"]:
                with self.server.lock:
                    self.server.answered[picture.tobytes()] += 1
            self.answer({"yes": self.server.says(picture, asked["question"])})

    def answer(self, body, code=200):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args): ...


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A server on this machine, which is asked again at once."""
    monkeypatch.setattr(endpoint, "PAUSES", (0.001, 0.01))
    with serving() as server:
        yield server


@contextmanager
def serving() -> Iterator[ThreadingHTTPServer]:
    """A server on this machine. ``answered`` counts the pictures that it told how light they are."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    server.lock, server.answered, server.says = threading.Lock(), Counter(), says
    server.requests, server.last, server.fails, server.model = 0, 10**9, False, "judge-1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def url(judge: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{judge.server_port}"


def configure(folder: Path, judge: ThreadingHTTPServer) -> Config:
    """Eight pictures in four shards."""
    (folder / "prompts.txt").write_text("".join(f"a light and a dog {i}\n" for i in range(8)))
    config = tiny.config(tiny.path())
    config.prompts.source = str(folder / "prompts.txt")
    config.erasure = ErasureConfig(concepts=[ConceptConfig(name="light", aliases=["lamp"])])
    eye = DetectorConfig(detector=f"{__name__}:Asking", options={"endpoint": url(judge), "threads": 2})
    config.audit = AuditConfig(detectors=[eye], policy=Policy.keep)
    config.cluster.backend = Backend.local
    config.output.path, config.output.samples_per_shard = str(folder / "corpus"), 2
    return config


def rows(folder: Path) -> list[ManifestRow]:
    return [row for path in sorted((folder / "corpus/manifests").iterdir()) for row in read_rows(path.read_bytes())]


@pytest.mark.slow
def test_one_that_fails_now_and_then_loses_nothing(tmp_path: Path, judge: ThreadingHTTPServer) -> None:
    judge.fails = True
    config = configure(tmp_path, judge)
    assert run(config).exit_code == 0
    assert judge.requests > sum(judge.answered.values()) + ASKED, "some were asked again"
    assert set(judge.answered.values()) == {1}
    given = sorted(np.frombuffer(pixels, np.uint8).mean() / 255 for pixels in judge.answered)
    assert sorted(row.scores["light"] for row in rows(tmp_path)) == pytest.approx(given)
    assert verify(config.output.path) == []
    store = open_store(config.output.path)
    (pinned,) = read_run_record(store).detectors
    assert pinned["about"] == {"model": "judge-1"}
    assert len(pinned["fingerprint"]) == ASKED
    said = store.read("README.md").decode()
    assert "may judge the same picture otherwise another time" in said
    assert "may judge the same picture otherwise another time" in store.read("report.html").decode()


@pytest.mark.slow
def test_while_it_is_down_shards_wait_and_what_is_committed_is_never_asked_again(
    tmp_path: Path, judge: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge.last = 14 + 10 + 4  # enough to be known twice, and for half of the pictures
    monkeypatch.setattr(endpoint, "PATIENCE", 0.05)
    monkeypatch.setattr("pipeline.cluster.fates.STORAGE_PATIENCE", 0.0)
    config = configure(tmp_path, judge)
    with pytest.raises(
        StoreError, match=r"^audit\.detectors\[0\]: http://\S+/ask answers 503 .*; 3 commits in a row failed"
    ):
        run(config)
    committed = rows(tmp_path)
    assert 0 < len(committed) < 8
    judge.answered.clear()
    judge.last = 10**9
    assert run(config).exit_code == 0
    assert len(judge.answered) == 8 - len(committed), "of the shards that were left"
    assert set(judge.answered.values()) == {1}
    assert rows(tmp_path)[: len(committed)] == committed
    assert verify(config.output.path) == []


@pytest.mark.slow
def test_another_judge_is_told_by_what_it_answers(
    tmp_path: Path,
    judge: ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(tmp_path, judge)
    config.contents["audit.detectors[0].options.endpoint"] = "anywhere"  # as loading a config has it
    assert run(config).exit_code == 0
    (tmp_path / "corpus/commits/000001.json").unlink()
    judge.says = lambda picture, question: 1 - says(picture, question)
    with pytest.raises(
        ConfigError, match=r"^audit.detectors.0.: .*answers 10 of 10 fixed questions otherwise .* red\?"
    ):
        run(config)
    judge.says, judge.model = says, "judge-2"
    with pytest.raises(ConfigError, match=r"is now another: about: .*judge-1.* -> .*judge-2"):
        run(config)
    judge.model = "judge-1"
    judge.says = lambda picture, question: 0.5 + 0.8 * (says(picture, question) - 0.5)  # of the same mind, less sure
    assert run(config).exit_code == 0
    judge.says = lambda picture, question: 1 - says(picture, question)
    with pytest.raises(ConfigError, match=r"^audit.detectors.0.: .*answers 10 of 10 fixed questions otherwise"):
        run(config)  # of a complete corpus too
    monkeypatch.setattr(endpoint, "FIRST", 0.0)
    config.audit.detectors[0].options["endpoint"] = "http://127.0.0.1:1"
    assert run(config).exit_code == 0, "and where nobody answers that is told"
    line = capsys.readouterr().err
    assert "was not looked at: audit.detectors[0]: http://127.0.0.1:1/model: " in line


def test_where_it_is_asked_is_no_part_of_the_identity(tmp_path: Path) -> None:
    sound, other = tmp_path / "config.yaml", "detector: 'my_judge:Mine', options: {endpoint: 'http://HERE', a: 1}"
    sound.write_text(SOUND.replace("detector: diorama", other))
    settled = ("model.dtype=float32", "generation.size=[64, 64]", "generation.compile=none")
    here = identity(load_config(sound, settled), "s")
    there = load_config(sound, [*settled, "audit.detectors[0].options.endpoint=http://there"])
    assert there.audit.detectors[0].options["endpoint"] == "http://there"
    assert identity(there, "s") == here
    assert identity(load_config(sound, [*settled, "audit.detectors[0].options.a=2"]), "s") != here


def test_one_that_never_answered_is_given_up_soon(monkeypatch: pytest.MonkeyPatch, judge: ThreadingHTTPServer) -> None:
    monkeypatch.setattr(endpoint, "FIRST", 0.0)
    with pytest.raises(EndpointError, match=r"it has not answered yet: is its URL right\?"):
        Asking("cpu", "http://127.0.0.1:1").about()


def test_an_answer_that_stays_is_not_waited_for(judge: ThreadingHTTPServer) -> None:
    judge.says = None  # as a key that it does not take
    with pytest.raises(ConfigError, match=r"/ask answers 401 .*no such key"):
        Asking("cpu", url(judge)).fingerprint()


def test_headers_with_a_key_follow_no_redirect() -> None:
    seen: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ConfigError, match="answers 302"):
            Asking("cpu", f"http://127.0.0.1:{server.server_port}").send("model")
        server.shutdown()
    assert seen == ["/model"]


def test_a_judge_that_is_sure_of_nothing_cannot_be_known_again(judge: ThreadingHTTPServer) -> None:
    judge.says = lambda picture, question: 0.6
    with pytest.raises(ConfigError, match=r"answers 0 of 14 simple questions with 0\.9 or more for yes or no"):
        Asking("cpu", url(judge)).fingerprint()


def test_what_cannot_be_read_is_asked_again(judge: ThreadingHTTPServer) -> None:
    asked = []

    def ask() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise Unanswered("no number")
        return "yes"

    assert Asking("cpu", url(judge)).patiently(ask) == "yes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "here"}, r"options\.endpoint: is 'here'; expected a URL"),
        ({"endpoint": "http://here", "threads": 0}, r"threads is 0"),
        ({"endpoint": "http://me:secret@here"}, r"^options\.endpoint: holds one of @\?#; expected a URL without"),
        ({"endpoint": "http://here?key=secret"}, r"^options\.endpoint: holds one of @\?#; expected a URL without"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Asking("cpu", **options)
