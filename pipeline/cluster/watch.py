"""Says what is waited for where nothing happens, and ends what nothing will come of. Knows nothing of Ray."""

import time
from collections.abc import Callable

QUIET = 30.0  # seconds without news after which whoever watches wants to know why, and again after each doubling


class Lost(Exception):
    """What the run stands on is gone, or nothing comes of it; the message says why, in a line."""


class Watch:
    """Looks on from one piece of news to the next. *say* is given a line."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self._say, self._clock = say, clock
        self._since = self._shown = clock()
        self._next = QUIET

    def happened(self, shown: bool = True) -> None:
        """There is news, which whoever watches has been shown or not."""
        self._since = self._clock()
        if shown:
            self._shown, self._next = self._since, QUIET

    def look(self, waited_for: Callable[[], str], bound: float) -> None:
        """Say what is waited for, if that is due; raise ``Lost`` where there was no news for *bound* seconds."""
        passed = self._clock() - self._since
        if passed >= bound:
            raise Lost(f"nothing has happened for {passed:.0f} s while waiting for {waited_for()}")
        quiet = self._clock() - self._shown
        if quiet >= self._next:
            self._next *= 2
            self._say(f"nothing to show for {quiet:.0f} s; waiting for {waited_for()}, for up to {bound:.0f} s")
