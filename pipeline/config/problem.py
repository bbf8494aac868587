"""What is wrong with a config: the key it is about, and one line that says what was expected."""

import re
from collections.abc import Iterable

from pipeline.config import scalars
from pipeline.config.scalars import Plain
from pipeline.errors import ConfigError, nearest


class Problem(ConfigError):
    """A ``ConfigError`` that knows its key path (``erasure.concepts[0].anchor``), so that a file can be put before it.

    ``key`` is empty where the whole file is at fault; ``file`` is given where it is not the config file itself.
    """

    def __init__(self, key: str, message: str, *, file: str | None = None):
        one_line = " ".join(message.split())
        super().__init__(f"{key}: {one_line}" if key else one_line)
        self.key = key
        self.message = one_line
        self.file = file


def under(path: str, key: object) -> str:
    """Join a key path and a key of the mapping there, as an override may name it: ``audit.thresholds[St. Bernard]``."""
    if not re.fullmatch(r"[^\[\].=\s][^\[\].=]*", str(key)):
        return f"{path}[{key}]" if re.fullmatch(r"[^\[\]]+", str(key)) else f"{path}[{str(key)!r}]"
    return f"{path}.{key}" if path else str(key)


def show(value: object, limit: int = 60) -> str:
    """Return *value* as a message shows it: short, on one line, in YAML's words; a whole number as it was written."""
    if isinstance(value, Plain):
        answer = scalars.truth(value)
        typed = scalars.untyped(value) if answer is None else answer
        value = typed if not isinstance(typed, int) or isinstance(typed, bool) else value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value) if isinstance(value, Plain) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def check_range(key: str, value: float, low: float, high: float | None = None) -> None:
    """Raise ``Problem`` for a *value* below *low* or above *high*."""
    if value < low or (high is not None and value > high):
        expected = f"at least {low:,}" if high is None else f"{low:,} to {high:,}"
        raise Problem(key, f"is {value}; expected {expected}")


def unknown(key: str, value: str, choices: Iterable[str]) -> Problem:
    """Return the ``Problem`` of a *value* that is none of *choices*."""
    choices = list(choices)
    return Problem(key, f"unknown {value!r}{nearest(value, choices)}; expected one of {', '.join(choices)}")
