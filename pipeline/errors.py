"""Errors that are the user's to mend: the command line prints them in one line and exits with 2, without a traceback.

Anything else that is raised is a fault of ours (or of the machine) and is shown whole.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class LacunaError(Exception):
    """Base of every error caused by input; its message says what, where, and what was expected."""


class ConfigError(LacunaError):
    """A config, an erasure list or an override that cannot be used."""


class SelfCheckError(ConfigError):
    """An edit that was solved and is refused for what it does to the model: a finding about it, not a slip."""


class CorpusError(LacunaError):
    """A corpus folder that is missing, damaged, or belongs to another run."""


class ClusterError(LacunaError):
    """Machines, or a Ray, that cannot do what a run needs."""


class StoreError(LacunaError):
    """A path or object store that cannot be read or written."""


class EndpointError(StoreError):
    """A judge behind an endpoint that does not answer: like storage, it may do so again."""


@contextmanager
def named_in_errors(what: str) -> Iterator[None]:
    """Have an error of code that a user brings, which is shown with its traceback, end in a line that says *what* of
    the config it came from. A ``LacunaError`` passes as it is."""
    try:
        yield
    except LacunaError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        error.add_note(f"{what}: {type(error).__name__}{f': {said}' if said else ''}")
        raise


def check_given(hook: str, value: object, kind: Any, expected: str) -> None:
    """Raise ``TypeError`` where *value*, which a *hook* of code that a user brings has given, is no *kind* (a class or
    a union); the error tells what was *expected*."""
    if not isinstance(value, kind):
        raise TypeError(f"{hook} gave a {type(value).__name__}; expected {expected}")


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the choice nearest to *word*, which may be the same in other letters' case,
    or ``""`` where none is near."""
    names = [str(choice) for choice in choices]
    matches = [name for name in names if name.casefold() == str(word).casefold()]
    matches = matches or difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
