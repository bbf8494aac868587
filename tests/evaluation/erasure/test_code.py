"""The digest of an evaluation's code: of every folder that decides what is drawn, and of nothing but code."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.evaluation.erasure.code import CODE, PACKAGE, code_digest, code_files


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the package's code."""
    copy = tmp_path_factory.mktemp("tree") / "pipeline"
    return Path(
        shutil.copytree(PACKAGE, copy, ignore=lambda _, names: [n for n in names if "." in n and n[-3:] != ".py"])
    )


def changed(tree: Path, path: Path, change: Callable[[str], str]) -> bool:
    """Whether a change of one file of the copy, which is taken back, changes the digest."""
    before, text = code_digest(tree), path.read_text()
    path.write_text(change(text))
    try:
        return code_digest(tree) != before
    finally:
        path.write_text(text)


def test_a_copy_has_the_same_digest(tree):
    assert code_digest(tree) == code_digest()


def test_code_that_changes_in_any_folder_changes_it(tree):
    by_folder = {path.parent: path for path in code_files(tree)}
    relative = {folder.relative_to(tree).as_posix() for folder in by_folder}
    below = {
        folder.relative_to(tree).as_posix()
        for name in CODE
        for folder in (tree / name, *(tree / name).rglob("*"))
        if folder.is_dir() and list(folder.glob("*.py"))
    }
    assert {"erasure", "erasure/methods", "erasure/cease", "erasure/gate", "generation", "models", "concepts"} <= below
    assert below <= relative
    for path in by_folder.values():
        assert changed(tree, path, lambda text: f"{text}\nLAMB = 0.5\n"), path


def test_a_new_file_and_one_of_another_name_change_it(tree):
    before = code_digest(tree)
    path = tree / "erasure" / "methods" / "new.py"
    path.write_text("")
    with_file = code_digest(tree)
    renamed = path.rename(path.with_name("newer.py"))
    with_name = code_digest(tree)
    renamed.unlink()
    assert len({before, with_file, with_name}) == 3
    assert code_digest(tree) == before


@pytest.mark.parametrize("name", ["erasure/selfcheck.py", "erasure/methods/uce.py", "models/attention.py"])
def test_docstrings_comments_and_layout_do_not_change_it(tree, name):
    path = tree / name
    assert path.read_text().startswith('"""')
    assert not changed(tree, path, lambda text: text.replace('"""', '"""On earlier weights: 97.1 %. ', 1))
    assert not changed(tree, path, lambda text: text.split('"""', 2)[2])
    assert not changed(tree, path, lambda text: text.replace("\ndef ", "\n# said by a comment\n\n\ndef ", 1))
    assert not changed(tree, path, lambda text: text.replace(" = ", "  =  ", 1))


def test_docstrings_of_functions_and_classes_do_not_change_it_and_other_strings_do(tree):
    path = tree / "models" / "sample.py"
    path.write_text('class A:\n    """Says."""\n\n    def f(self):\n        """Says."""\n        return "said"\n')
    try:
        assert not changed(tree, path, lambda text: text.replace("Says", "Tells"))
        assert changed(tree, path, lambda text: text.replace("said", "told"))
        assert changed(tree, path, lambda text: text.replace("return", "yield"))
    finally:
        path.unlink()


def test_a_part_that_has_gone_elsewhere_is_missed(tree):
    path = tree / "diorama" / "detector.py"
    gone = path.rename(path.with_name("eyes.py"))
    with pytest.raises(FileNotFoundError, match=r"detector\.py"):
        code_digest(tree)
    gone.rename(path)
