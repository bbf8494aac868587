"""What a person reads: standard output, and standard error beside it, on a terminal, in a log, or read by nobody.

Standard error is best effort: a run goes on when its log's reader dies, its terminal closes or the log's disk is full.
Standard output is what was asked for: a command that cannot write it says so.
"""

import contextlib
import io
import itertools
import os
import shutil
import sys
import textwrap
import threading
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.errors import LacunaError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SECONDS_BETWEEN_FRAMES = 0.3
COLUMNS = 120  # where neither a terminal nor the environment tells
READER_GONE = 141  # what a shell reports of a tool that wrote to a closed pipe
# Control characters colour, erase and move; the others break lines or reorder what stands beside them.
_MISLEADING = [chr(i) for i in range(256) if unicodedata.category(chr(i)) == "Cc"]
_MISLEADING += [chr(i) for i in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))]
_ESCAPES = {ord(character): character.encode("unicode_escape").decode() for character in _MISLEADING}
_ESCAPES_BUT_BREAKS = {code: escape for code, escape in _ESCAPES.items() if chr(code) not in "\n\t"}

_FILL = "\0"  # is in no text that is printed


class ReaderGone(Exception):
    """Nobody reads standard output any more."""


def printable(text: str, *, lines: bool = False) -> str:
    """Return *text* with escapes for what a terminal obeys instead of showing; with *lines*, line breaks and tabs stay.

    Prompts, names and paths come from anywhere, and must not repaint the terminal of whoever lists them.
    """
    return text.translate(_ESCAPES_BUT_BREAKS if lines else _ESCAPES)


def duration(seconds: float) -> str:
    """Return *seconds* as a person would tell them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60:,} h {minutes % 60} min"


def columns() -> int:
    """Return how wide standard output is, in characters."""
    return shutil.get_terminal_size((COLUMNS, 24)).columns


def wrapped(line: str, width: int, indent: int) -> str:
    """Return *line* broken at blanks to lines of *width* columns, of which all but the first are indented by *indent*.
    A word that is longer stands alone."""
    # What takes two columns, such as letters of Chinese, is counted as two characters.
    wide = "".join(letter + _FILL * (unicodedata.east_asian_width(letter) in "WF") for letter in line)
    broken = textwrap.fill(wide, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return broken.replace(_FILL, "")


def tell(text: str) -> None:
    """Print *text*, of one line or several, to standard output.

    Raises ``ReaderGone`` where that is closed, and ``LacunaError`` where it cannot be written, as on a full disk.
    """
    if sys.stdout is None:
        raise ReaderGone
    _Sign.take_down()
    try:
        print(printable(text, lines=True), flush=True)
    except BrokenPipeError:
        _discard_output()
        raise ReaderGone from None
    except OSError as error:
        _discard_output()
        raise LacunaError(f"standard output cannot be written: {error.strerror}") from error


def _discard_output() -> None:
    """Let what is still in the buffer go nowhere: Python would try it again on exit, and print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def live() -> bool:
    """Is standard error a terminal on which a line can be redrawn?"""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@contextlib.contextmanager
def busy(text: str) -> Iterator[None]:
    """On a terminal show that *text* is under way, until something else is shown: libraries take seconds to load."""
    if live() and sys.stderr.fileno() == 2:
        _Sign.shown = _Sign(text)
    try:
        yield
    finally:
        _Sign.take_down()


class _Sign:
    """A line that turns, on a thread of its own. It goes past ``sys.stderr``, whose writes take it down."""

    shown: "_Sign | None" = None

    def __init__(self, text: str):
        self._text, self._drawn = text, False
        self._lock, self._down = threading.Lock(), threading.Event()
        threading.Thread(target=self._turn, daemon=True).start()

    @classmethod
    def take_down(cls) -> None:
        sign, cls.shown = cls.shown, None
        if sign is not None:
            with sign._lock:
                sign._down.set()
                if sign._drawn:
                    sign._write(b"\r\x1b[2K")

    def _turn(self) -> None:
        for frame in itertools.cycle("|/-\\"):
            if self._down.wait(SECONDS_BETWEEN_FRAMES):
                return
            with self._lock:
                if not self._down.is_set():
                    self._drawn = True
                    self._write(f"\r{frame} {self._text}".encode())

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            os.write(2, data)


def use_utf8() -> None:
    """Begin this process again with UTF-8, and so all that it starts, where file names could have ASCII alone.

    Python does so by itself, but where it is forbidden (``PYTHONUTF8=0`` and a locale of C).
    """
    if sys.getfilesystemencoding() == "ascii":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def is_text(word: str) -> bool:
    """Tell whether an argument is text, and no bytes that could not be read as any."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def settle_streams() -> None:
    """Make this process's own streams what this module promises; streams that others have put in place are theirs.

    A character that the output's encoding lacks is written as an escape.
    """
    for number in range(3):  # a file that is opened later must not get the number of a closed one, and its output
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is sys.__stderr__:
        encoding = sys.stderr.encoding if sys.stderr is not None else "utf-8"
        raw = _BestEffort(2, "w", closefd=False)
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True
        )


class _BestEffort(io.FileIO):
    """A file that takes everything: what cannot be written is lost."""

    def write(self, data: "ReadableBuffer") -> int:
        _Sign.take_down()
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written
