"""The limits on processes and threads that are near are named."""

from pathlib import Path

import pytest

from pipeline.cluster import limits


def test_a_limit_that_is_near_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "CONTAINER", tmp_path)
    (tmp_path / "pids.current").write_text("213\n")
    (tmp_path / "pids.max").write_text("220\n")
    assert "this container may have 220 processes and threads (pids.max) and has 213" in str(
        limits.limit_of_processes()
    )
    for far in ("max\n", "100000\n"):
        (tmp_path / "pids.max").write_text(far)
        assert "pids.max" not in str(limits.limit_of_processes())
