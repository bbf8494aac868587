"""A failure that stays: what has raised once may not hold its invariants any more, and raises the same ever after."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar


class Breakable(Protocol):
    """What can break: *broken* is what it raised, *notice* takes in what time has brought."""

    broken: Exception | None

    def notice(self) -> None: ...


S = TypeVar("S", bound=Breakable)
P = ParamSpec("P")
R = TypeVar("R")


def final_failure(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """First take in what time has brought. After an exception in one call, every call raises it."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.broken is not None:
            raise self.broken
        try:
            self.notice()
            return method(self, *args, **kwargs)
        except Exception as error:
            self.broken = error
            raise

    return call
