"""Which code drew an evaluation's pictures: a digest that a change of code changes, and one of words alone does not."""

import ast
import hashlib
from functools import cache
from pathlib import Path

from pipeline.statements import docstrings

# Of the package: what decides which picture a recipe draws, and what B sees in it. A folder counts with all below it.
CODE = (
    "concepts", "diorama/detector.py", "erasure", "evaluation/attacks/embedding.py", "generation", "models",
)  # fmt: skip
PACKAGE = Path(__file__).parents[2]


def code_digest(package: Path = PACKAGE) -> str:
    """Sixteen hex digits over ``CODE``, without its docstrings, comments and layout. ``FileNotFoundError`` where a part
    of it has gone elsewhere."""
    digest = hashlib.sha256()
    for path in code_files(package):
        digest.update(f"{path.relative_to(package).as_posix()}\n{_code(path.read_bytes())}\n".encode())
    return digest.hexdigest()[:16]


def code_files(package: Path = PACKAGE) -> list[Path]:
    """The files that ``code_digest`` reads, in its order."""
    places = [package / name for name in CODE]
    return [path for place in places for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]


@cache
def _code(source: bytes) -> str:
    """What a file does: its statements, written in one way, that of this Python.

    ``pipeline.statements`` leaves their layout, and is the same under every Python, as a calibration that is handed on
    must be. Drawings stay where they were made, and are known by this.
    """
    tree = ast.parse(source)
    for node, _ in docstrings(tree):
        node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]
    return ast.unparse(tree)
