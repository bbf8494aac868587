"""What several commands share: their type, and two helpers of those that draw."""

import argparse
import sys
from collections.abc import Callable

from pipeline.errors import LacunaError
from pipeline.terminal import printable

Commands = dict[str, Callable[[argparse.Namespace], int]]  # by name: what does it, and returns the exit status


def need_docstrings() -> None:
    """Refuse to draw without docstrings: ``transformers`` makes some of its own from others when it is imported."""
    if sys.flags.optimize > 1:
        raise LacunaError(
            "python -OO takes away the docstrings that transformers needs when it is imported: run this command with "
            "python or python -O, and without PYTHONOPTIMIZE=2"
        )


def say(line: str) -> None:
    """Tell a line on the way, beside what the command prints."""
    print(f"lacuna: {printable(line)}", file=sys.stderr)
