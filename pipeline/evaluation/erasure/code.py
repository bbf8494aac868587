"""Which code drew an evaluation's pictures: a digest that a change of code changes, and one of words alone does not."""

import ast
import hashlib
from functools import cache
from pathlib import Path

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
    """What a file does: its statements, written in one way."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _has_docstring(
            node
        ):
            node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]
    return ast.unparse(tree)


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
