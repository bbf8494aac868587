"""A file that is written is there whole or not at all."""

from pathlib import Path

import pytest

from pipeline.files import replace_synced


def test_what_was_there_is_replaced_and_the_other_name_is_gone(tmp_path: Path) -> None:
    path, temporary = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"old and longer")
    temporary.write_bytes(b"left by one that was killed")
    replace_synced(path, b"new", temporary)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_stays_where_nothing_can_be_written(tmp_path: Path) -> None:
    (path := tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="No such file or directory"):
        replace_synced(path, b"new", tmp_path / "missing" / "b")
    assert path.read_bytes() == b"old"
