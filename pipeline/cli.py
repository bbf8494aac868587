"""The `lacuna` command: its arguments read, the command run, and what goes wrong told in a line."""

import argparse
import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pipeline.arguments import build_parser
from pipeline.commands import COMMANDS
from pipeline.errors import LacunaError
from pipeline.terminal import READER_GONE, ReaderGone, busy, is_text, printable, settle_streams, use_utf8


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 (the run or the corpus has failures), 2 (input that cannot be used, or output that
    cannot be written), 130 (interrupted) or 141 (nobody reads what it prints)."""
    try:
        if argv is None:
            use_utf8()
            argv = sys.argv[1:]
        settle_streams()
        args = _read(argv)
        with busy(f"lacuna {argv[0]}: reading and loading"):
            return COMMANDS[args.command](args)
    except LacunaError as error:
        print(f"lacuna: {printable(str(error), lines=True)}", file=sys.stderr)
        return 2
    except ReaderGone:
        return READER_GONE
    except UnicodeEncodeError as error:
        if error.encoding != sys.getfilesystemencoding():
            raise
        print(f"lacuna: {error.object!a}: file names are in {error.encoding} here; set PYTHONUTF8=1", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lacuna: stopped", file=sys.stderr)
        return 130


def _read(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments; where they are wrong, the process ends with 2."""
    parser = build_parser()
    for word in argv:
        if not is_text(word):
            parser.error(f"{word!r} is no text in UTF-8")
    # argparse takes no positionals behind options; overrides stand anywhere
    args, extra = parser.parse_known_args(argv)
    if extra:
        if not hasattr(args, "overrides") or any(word.startswith("-") for word in extra):
            parser.error(f"unrecognized arguments: {' '.join(extra)}")
        args.overrides = [*args.overrides, *extra]
    return args


def entry() -> NoReturn:
    """Run the command of ``sys.argv`` and end the process with what it returns.

    The interpreter is not taken down: a native thread of a library (of Arrow's pool: apache/arrow#45017) that asks for
    it then is unwound, which aborts the process, and a sound corpus would end with 134.
    """
    try:
        code = main()
    except KeyboardInterrupt:  # a second one, while the first was told
        code = 130
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is done and said: Ctrl-C ends it, without a traceback
    _flush()
    atexit._run_exitfuncs()
    _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


if __name__ == "__main__":
    entry()
