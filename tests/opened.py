"""What is opened in a process is noted: each load of a model, each digest of its folder, each detector and store."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pipeline.erasure.method import Method

WATCHED = {  # what is noted, and the name under which it is called
    "model": "pipeline.session.load_model",
    "digest": "pipeline.models.find._folder_digest",
    "detector": "pipeline.audit.eye.load_detector",
    "store": "pipeline.corpus.opening.LocalStore",
}


def watch(note: Callable[[str], object], replace: Callable[[Any, str, Any], object] = setattr) -> None:
    """Have *note* called with the name of each that is opened from now on; *replace* sets an attribute of a module."""
    for what, place in WATCHED.items():
        module, _, name = place.rpartition(".")
        replace(import_module(module), name, noted(getattr(import_module(module), name), what, note))


def noted(opened: Callable[..., Any], what: str, note: Callable[[str], object]) -> Callable[..., Any]:
    @functools.wraps(opened)
    def call(*args: Any, **kwargs: Any) -> Any:
        note(what)
        return opened(*args, **kwargs)

    return call


@dataclass(kw_only=True)
class NotingOptions:
    """``file``: what is noted goes there, with the process's id; from the first time that its options are read."""

    file: str

    def __post_init__(self) -> None:
        if self.file not in _noting:
            _noting.append(self.file)
            watch(self._note)

    def _note(self, what: str) -> None:
        with open(self.file, "a") as file:
            file.write(f"{os.getpid()} {what}\n")


_noting: list[str] = []


class Noting(Method):
    """Does nothing to any picture."""

    Options = NotingOptions

    def steer(self, prompts: Any, sampling: Any) -> None:
        return None
