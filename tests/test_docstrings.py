"""Docstrings and comments say what holds now: results stand in files, and what was tried in dated logs beside them."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "jobs").glob("*.py")])
EXPERIMENT = re.compile(
    r"\b\d[\d,]* of [\d,]*\d\b"  # 24 of 100 scenes
    r"|\b(earlier|old|previous) (weights|UNet)"
    r"|\bH_o (of |to )?\d"
    r"|\b(leak|erased)\w* (falls|fell) ",
)


def said(source: str) -> list[str]:
    """The docstrings and comments of a file."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, nodes)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [*found, *(token.string for token in tokens if token.type == tokenize.COMMENT)]


def test_no_experiment_is_told_in_docstrings_and_comments():
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r} in {text[max(0, match.start() - 60) : match.end() + 60]!r}"
        for path in FILES
        for text in said(path.read_text())
        for match in EXPERIMENT.finditer(text)
    ]
    assert not found, "belongs into a results file, or into LOG.md beside it"


@pytest.mark.parametrize(
    "text", ["24 of 100 scenes of a farm", "On earlier weights", "reached an H_o of 95.4 %", "leak falls from .25 to 0"]
)
def test_what_is_an_experiment(text):
    assert said(f'"""Says.\n\n{text}\n"""\nx = 1  # {text}\n') == [f"Says.\n\n{text}", f"# {text}"]
    assert EXPERIMENT.search(text)
