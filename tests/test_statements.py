"""What a file of Python does: neither comments, docstrings nor blank lines, and every string that is no docstring."""

import ast
from pathlib import Path

from pipeline.statements import docstrings, statements

SOURCE = '''"""Of the file.

Of two lines."""

import os  # for a path


class A:
    """Of a class."""

    name = "# no comment"

    async def f(self):
        """Of a function."""
        """No docstring."""
        return f"{self.name}"  # says


def g(): ...
'''
LEFT = '''import os
class A:
    name = "# no comment"
    async def f(self):
        """No docstring."""
        return f"{self.name}"
def g(): ...'''


def test_comments_docstrings_and_blank_lines_are_left_out(tmp_path: Path):
    path = tmp_path / "sample.py"
    path.write_text(SOURCE)
    assert statements(path) == LEFT
    path.write_text("")
    assert statements(path) == ""


def test_what_has_a_docstring_is_told_with_it():
    found = list(docstrings(ast.parse(SOURCE)))
    names = [getattr(node, "name", "") for node, _ in found]
    assert names == ["", "A", "f"]
    assert [ast.literal_eval(docstring.value) for _, docstring in found] == [
        "Of the file.\n\nOf two lines.",
        "Of a class.",
        "Of a function.",
    ]
