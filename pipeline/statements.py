"""What a file of Python does, as a text that a change of its comments, docstrings and blank lines leaves alone."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def statements(path: Path) -> str:
    """Return the lines of the file *path* that do something, the same under every version of Python."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for _, docstring in docstrings(ast.parse(source)):
        assert docstring.end_lineno is not None
        lines[docstring.lineno - 1 : docstring.end_lineno] = [""] * (docstring.end_lineno - docstring.lineno + 1)
    return "\n".join(line for line in map(str.rstrip, lines) if line)


def docstrings(tree: ast.Module) -> Iterator[tuple[Documented, ast.Expr]]:
    """Yield what in *tree* has a docstring, and the docstring, the first of its body."""
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                match node.body[:1]:
                    case [ast.Expr(value=ast.Constant(value=str())) as docstring]:
                        yield node, docstring
