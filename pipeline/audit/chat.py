"""A vision-language model behind an OpenAI-compatible endpoint, such as vLLM's, as a judge: asked, it says yes or no.

A picture goes with the question as a PNG in a data URL, one token is asked for, and the probability of yes is that of
all ways to write it, over that of yes and no, among the likeliest tokens whose log-probabilities the server tells.
Where neither is among them it has not answered, and the score is 0.5: seen, and unsure. A key is read from the
environment variable that ``key_env`` names, and is neither saved nor printed.
"""

import base64
import io
import math
import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from pipeline.audit.endpoint import Endpoint, Unanswered
from pipeline.audit.questions import Questions, share
from pipeline.concepts.term import Term
from pipeline.errors import ConfigError, nearest

THRESHOLD = 0.5  # uncalibrated: yes is likelier than no
_VARIABLE = r"[A-Z_][A-Z0-9_]*"


class Chat(Endpoint):
    """Judges whatever a question can be asked about; a concept that is an identity only by the user's own question."""

    def __init__(
        self,
        device: str,
        endpoint: str,
        model: str | None = None,
        questions: Mapping[str, str] | None = None,
        key_env: str | None = None,
        top: int = 20,
        threads: int = 8,
        timeout: float = 60.0,
    ):
        """*endpoint* ends in /v1 with most servers; *model* may be left out where it serves one; *top* is how many
        likeliest tokens it is asked for. Raises ``ConfigError``."""
        super().__init__(device, endpoint, threads, timeout)
        self.questions = Questions("chat", questions)
        if top < 2:
            raise ConfigError(f"chat: top: is {top}; expected 2 or more of the likeliest tokens, for yes and for no")
        self.top, self._model = top, model
        self._key = "" if key_env is None else _key(key_env)

    def knows(self, term: Term) -> bool:
        return self.questions.knows(term)

    def threshold(self, term: Term) -> float:
        return THRESHOLD

    def question(self, term: Term) -> str:
        return self.questions.of(term)

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def about(self) -> dict[str, str]:
        """Raises ``ConfigError`` for a model that the endpoint does not serve, ``EndpointError`` where it is down."""
        return {"model": self.model, "revision": str(self._served[self.model].get("root") or "")}

    @property
    def model(self) -> str:
        """The model that is asked: the config's, or the only one that there is."""
        served = list(self._served)
        if self._model is None and len(served) != 1:
            raise ConfigError(f"chat: model: {self.endpoint} serves {', '.join(served) or 'none'}; say which")
        if self._model is not None and self._model not in served:
            near = nearest(self._model, served)
            raise ConfigError(
                f"chat: model: {self.endpoint} does not serve {self._model!r}{near}; expected one of "
                f"{', '.join(served) or 'none'}"
            )
        return self._model or served[0]

    @cached_property
    def _served(self) -> dict[str, dict[str, Any]]:
        """What the endpoint tells of the models that it serves, by name."""
        told = self.patiently(lambda: self.send("models"))
        models = told.get("data") if isinstance(told, dict) else None
        if not isinstance(models, list):
            raise ConfigError(f"chat: {self.endpoint} tells of no models; expected an OpenAI-compatible URL, as .../v1")
        return {str(model["id"]): model for model in models if isinstance(model, dict) and "id" in model}

    def send(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            return super().send(path, body)
        except (ConfigError, Unanswered) as error:  # a server may tell what it was sent
            if self._key and self._key in str(error):
                raise type(error)(str(error).replace(self._key, "***")) from None
            raise

    def ask(self, picture: np.ndarray, question: str) -> float:
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(picture)}},
            {"type": "text", "text": question},
        ]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": 1,
            "logprobs": True,
            "top_logprobs": self.top,
        }
        answer = self.send("chat/completions", body)
        try:
            choice = answer["choices"][0]
            told = choice.get("logprobs")
            likely = told["content"][0]["top_logprobs"] if told else None
        except (LookupError, TypeError, AttributeError) as error:
            raise Unanswered(f"{self.endpoint} answers what is no chat completion: {str(answer)[:100]}") from error
        if not likely:
            raise ConfigError(
                f"chat: {self.endpoint} tells no log-probabilities with {self.model}; expected a server that does "
                "(logprobs, top_logprobs), such as vLLM"
            )
        return share(_probabilities(likely, "yes"), _probabilities(likely, "no"))


def _probabilities(likely: list[dict[str, Any]], word: str) -> list[float]:
    """Return the probabilities of the ways to write *word* among the likeliest tokens."""
    # Some tokenizers mark a blank before a word by a letter of their own.
    return [math.exp(one["logprob"]) for one in likely if one["token"].strip(" \n\t▁Ġ").lower() == word]


def _data_url(picture: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _key(variable: str) -> str:
    """Return what the environment *variable* holds. What is no name of one may be the key itself: it is not printed."""
    if not re.fullmatch(_VARIABLE, variable):
        raise ConfigError("chat: key_env: expected the name of an environment variable, such as OPENAI_API_KEY")
    if not os.environ.get(variable):
        raise ConfigError(f"chat: key_env: {variable} is not set here; expected the endpoint's key in it")
    return os.environ[variable]
