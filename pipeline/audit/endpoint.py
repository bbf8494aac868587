"""A judge that is asked over HTTP: many questions at once, patiently, and known again by what it answers.

No hash pins what is behind an endpoint, and a server's probabilities differ a little from call to call. What is asked
about here is therefore recorded with the answers of the judge to fixed questions on fixed pictures, of which only those
count that it answers surely, and then only as yes or no.

An endpoint that has answered is waited for like busy storage; after that the shard is put back and drawn again, and
where it goes on like that the run ends, to go on with the same command.
"""

import json
import random
import threading
import time
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any, TypeVar

import numpy as np

from pipeline.audit.detector import Detector
from pipeline.concepts.term import Term
from pipeline.errors import ConfigError, EndpointError

PATIENCE = 180.0  # seconds for which one that has answered before is asked again
FIRST = 10.0  # and one that never has
PAUSES = (0.25, 10.0)  # seconds before the second and before later questions, at most
AGAIN = frozenset({408, 425, 429})  # of the answers below 500 those that pass
SURE = 0.9  # of yes or of no
ASKED = 10  # questions by which a judge is known again

COLOURS = {"red": (220, 20, 20), "green": (20, 160, 40), "blue": (20, 40, 220), "black": (0, 0, 0)}
SIDE = 128  # pixels of a fixed picture

T = TypeVar("T")


class Unanswered(Exception):
    """No answer, or none that could be read: it may be asked again."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an answer: the headers, with their key, are for the endpoint alone."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


class Endpoint(Detector):
    """Asks a judge at ``endpoint``, a URL, yes-or-no questions: ``threads`` at a time, each for ``timeout`` seconds.

    A subclass says what is asked (``question``) and how (``ask``, by way of ``send``), and in ``about`` what model and
    revision the endpoint reports. Where the endpoint is found is no part of a corpus's identity.
    """

    deterministic = False

    def __init__(self, device: str, endpoint: str, threads: int = 8, timeout: float = 60.0):
        """Raise ``ConfigError`` for what is no URL and no number."""
        super().__init__(device)
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"options.endpoint: is {endpoint!r}; expected a URL, http:// or https://")
        if any(sign in endpoint for sign in "@?#"):  # and messages name it
            raise ConfigError("options.endpoint: holds one of @?#; expected a URL without a user, password or query")
        if threads < 1 or timeout <= 0:
            raise ConfigError(f"options: threads is {threads} and timeout {timeout:g}; expected 1 or more, and seconds")
        self.endpoint, self.threads, self.timeout = endpoint.rstrip("/"), threads, timeout
        self._answered = False
        self._given_up = threading.Event()

    @abstractmethod
    def question(self, term: Term) -> str:
        """Return what is asked about *term*, to be answered by yes or no."""

    @abstractmethod
    def ask(self, picture: np.ndarray, question: str) -> float:
        """Return the probability of yes to *question* about *picture*, uint8 ``(H, W, 3)``. Called in several threads;
        ``Unanswered`` where the answer cannot be read, whereupon it is called again."""

    def headers(self) -> Mapping[str, str]:
        """Return what goes with each request, such as a key."""
        return {}

    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        asked = [(image, self.question(term)) for image in images for term in terms]
        return np.array(self._answers(asked), np.float32).reshape(len(images), len(terms))

    def fingerprint(self, asked: Sequence[str] = ()) -> dict[str, bool]:
        """Raises ``ConfigError`` for a judge that is sure of too few fixed questions to be known by them."""
        known = {f"{name}: {question}": (picture, question) for name, picture, question in _questions()}
        names = list(asked or known)
        said = dict(zip(names, self._answers(known[name] for name in names), strict=True))
        if asked:
            return {name: yes >= 0.5 for name, yes in said.items()}
        sure = {name: yes >= 0.5 for name, yes in said.items() if max(yes, 1 - yes) >= SURE}
        if len(sure) < ASKED:
            raise ConfigError(
                f"{self.endpoint} answers {len(sure)} of {len(known)} simple questions with {SURE:g} or more for yes "
                f"or no, and by {ASKED} it is known again; expected a judge that tells red from blue"
            )
        return dict(list(sure.items())[:ASKED])

    def send(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON that the endpoint answers under *path*, to *body* as JSON or, without one, to a GET.

        Asks once; ``Unanswered`` where no answer comes, ``ConfigError`` where it is one that stays.
        """
        url = f"{self.endpoint}/{path.lstrip('/')}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json", **self.headers()})
        try:
            with _opener.open(request, timeout=self.timeout) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            told = " ".join(error.read(300).decode(errors="replace").split())
            if error.code >= 500 or error.code in AGAIN:
                raise Unanswered(f"{url} answers {error.code} {error.reason} {told}".rstrip()) from error
            raise ConfigError(f"{url} answers {error.code} {error.reason} {told}".rstrip()) from error
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Unanswered(f"{url}: {' '.join(str(reason).split()) or type(error).__name__}") from error
        self._answered = True
        return found

    def patiently(self, ask: Callable[[], T]) -> T:
        """Return what *ask* returns, which is called again while it raises ``Unanswered``.

        Raises ``EndpointError`` once the endpoint was waited for in vain.
        """
        began, pause = time.monotonic(), PAUSES[0]
        while True:
            try:
                return ask()
            except Unanswered as error:
                patience = PATIENCE if self._answered else FIRST
                if time.monotonic() - began >= patience or self._given_up.wait(random.uniform(pause / 2, pause)):
                    never = "" if self._answered else "; it has not answered yet: is its URL right?"
                    raise EndpointError(f"{error}{never}") from error
                pause = min(PAUSES[1], 2 * pause)

    def _answers(self, asked: Iterable[tuple[np.ndarray, str]]) -> list[float]:
        """Return the probabilities of yes, in the order of what is *asked*."""
        self._given_up.clear()
        pool = ThreadPoolExecutor(self.threads, "ask")
        try:
            return list(pool.map(lambda pair: self.patiently(lambda: self.ask(*pair)), asked))
        except BaseException:
            self._given_up.set()  # for nobody waits for the others any more
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _questions() -> list[tuple[str, np.ndarray, str]]:
    """Return the name of each fixed picture, the picture and a question about it; every other has the answer yes."""
    found = []
    colours = list(COLOURS)
    for i, name in enumerate(colours):
        plain = np.full((SIDE, SIDE, 3), COLOURS[name], np.uint8)
        other = colours[(i + 1) % len(colours)]
        found += [(name, plain, f"Is this picture {asked}?") for asked in (name, other)]
    down, right = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    shapes = {
        "a circle": down**2 + right**2 < (SIDE / 3) ** 2,
        "a square": (abs(down) < SIDE / 4) & (abs(right) < SIDE / 4),
        "stripes": down % 32 < 16,
    }
    for i, (name, drawn) in enumerate(shapes.items()):
        picture = np.repeat(np.where(drawn, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        other = list(shapes)[(i + 1) % len(shapes)]
        found += [(name, picture, f"Does this picture show {asked}?") for asked in (name, other)]
    return found
