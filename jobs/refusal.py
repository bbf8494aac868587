"""How a job ends that is given what it cannot work with: with one line, and the status 2."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import LacunaError


@contextmanager
def in_one_line(expected: str = "") -> Iterator[None]:
    """End the job where what is done within is refused (``LacunaError``); the line names the job, and ends with what is
    *expected* of all that may be refused here."""
    try:
        yield
    except LacunaError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}{expected and f'; expected {expected}'}", file=sys.stderr)
        raise SystemExit(2) from error
