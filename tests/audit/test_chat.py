"""A judge behind an OpenAI-compatible endpoint, on a server of this machine that knows colours: what is asked, how its
answers are read, and that its key is nowhere."""

import base64
import io
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.audit.chat import Chat
from pipeline.concepts.term import Kind, Term
from pipeline.errors import ConfigError
from tests import tiny_eyes

KEY = "sk-verysecret"
RED = Term("red")


def look(body: dict[str, Any]) -> dict[str, Any]:
    """Answer whether a picture is red: with the probability that its share of red is."""
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))))
    red = float(np.clip(picture[..., 0].mean() / 255, 0.01, 0.99))
    likely = {"Yes": red / 2, " yes": red / 4, "No": (1 - red) * 3 / 4, "The": 0.25}
    told = [{"token": token, "logprob": math.log(p)} for token, p in likely.items()]
    return {"choices": [{"message": {"content": "?"}, "logprobs": {"content": [{"top_logprobs": told}]}}]}


@contextmanager
def serving(
    answer=look, models=({"id": "judge", "root": "org/judge"},), status: int = 200
) -> Iterator[tuple[str, list]]:
    """Yield the URL of a server, and the requests that it got: their path, headers and body."""
    got: list[tuple[str, dict[str, str], Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.tell(None, 200, {"data": list(models)})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.tell(body, status, answer(body) if status == 200 else {"error": self.headers["Authorization"]})

        def tell(self, body: Any, code: int, found: Any) -> None:
            got.append((self.path, dict(self.headers), body))
            data = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def shades(*reds: int) -> np.ndarray:
    return np.stack([np.full((20, 30, 3), (red, 10, 10), np.uint8) for red in reds])


def test_the_score_is_the_share_of_yes_among_the_likeliest_tokens_of_the_picture_sent():
    with serving() as (url, got):
        detector = tiny_eyes.load("chat", endpoint=url, questions={"red": "Is it red?"})
        scores = detector.see(shades(51, 204), [RED, Term("blue sky")]).scores
        assert np.allclose(scores, [[0.2, 0.2], [0.8, 0.8]], atol=0.01)
        assert detector.about() == {"model": "judge", "revision": "org/judge"}
        asked = [body for path, _, body in got if path == "/v1/chat/completions"]
        assert len(asked) == 4
        assert {body["messages"][0]["content"][1]["text"] for body in asked} == {
            "Is it red? Answer with yes or no, and nothing else.",
            "Does this picture show blue sky? Answer with yes or no, and nothing else.",
        }
        expected = {"model": "judge", "temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 20}
        assert all(expected.items() <= body.items() for body in asked)
        assert not any("Authorization" in headers for _, headers, _ in got)


def test_an_answer_that_is_neither_yes_nor_no_is_unsure():
    def mumble(body: dict[str, Any]) -> dict[str, Any]:
        told = [{"token": "Well", "logprob": -0.1}, {"token": "yesterday", "logprob": -3.0}]
        return {"choices": [{"logprobs": {"content": [{"top_logprobs": told}]}}]}

    with serving(mumble) as (url, _):
        detector = tiny_eyes.load("chat", endpoint=url)
        assert detector.score(shades(9), [RED]).tolist() == [[0.5]]
        assert detector.threshold(RED) == 0.5


def test_the_key_is_sent_and_is_nowhere_else(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(status=401) as (url, got):
        detector = tiny_eyes.load("chat", endpoint=url, key_env="JUDGE_KEY")
        with pytest.raises(ConfigError) as caught:
            detector.score(shades(9), [RED])
        assert got[-1][1]["Authorization"] == f"Bearer {KEY}"
        assert "Bearer ***" in str(caught.value)  # the server tells it back
        assert KEY not in f"{caught.value!r} {detector.about()} {detector.files()}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_env": KEY}, "chat: key_env: expected the name of an environment variable, such as OPENAI_API_KEY"),
        ({"key_env": "NO_SUCH_KEY"}, "chat: key_env: NO_SUCH_KEY is not set here"),
        ({"top": 1}, "chat: top: is 1; expected 2 or more"),
        ({"questions": {"cat": ""}}, "chat: questions.cat: expected a question"),
        ({"endpoint": "localhost:8000"}, "expected a URL"),
        ({"key": KEY}, "chat has no such option (did you mean 'key_env'?)"),
    ],
)
def test_bad_options_give_one_line_without_the_key(options, message):
    said = tiny_eyes.one_line("chat", **{"endpoint": "http://127.0.0.1:9/v1", **options})
    assert message in said
    assert KEY not in said


@pytest.mark.parametrize(
    ("model", "models", "message"),
    [
        ("judg", ({"id": "judge"},), "does not serve 'judg' (did you mean 'judge'?); expected one of judge"),
        (None, ({"id": "one"}, {"id": "two"}), "serves one, two; say which"),
        (None, (), "serves none; say which"),
    ],
)
def test_the_model_is_one_that_is_served(model, models, message):
    with serving(models=models) as (url, _):
        detector = tiny_eyes.load("chat", endpoint=url, **({} if model is None else {"model": model}))
        with pytest.raises(ConfigError) as caught:
            detector.about()
        assert message in str(caught.value)


def test_a_server_without_log_probabilities_is_told_so():
    with serving(lambda body: {"choices": [{"logprobs": None}]}) as (url, _), pytest.raises(ConfigError) as caught:
        tiny_eyes.load("chat", endpoint=url).score(shades(9), [RED])
    assert "tells no log-probabilities with judge; expected a server that does" in str(caught.value)


def test_an_identity_is_judged_by_a_question_of_the_users_own_alone():
    detector = tiny_eyes.load("chat", endpoint="http://127.0.0.1:9/v1", questions={"me": "Is it me?"})
    assert isinstance(detector, Chat)
    assert detector.knows(Term("me", kind=Kind.identity))
    assert not detector.knows(Term("you", kind=Kind.identity))
    assert not detector.deterministic
