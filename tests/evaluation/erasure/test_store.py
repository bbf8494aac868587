"""The folder of an evaluation: batches whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import CorpusError, StoreError
from pipeline.evaluation.erasure.store import Folder, Origin, Seen

ORIGIN = Origin(asked="a", code="c")


def batch(width: int = 64) -> Seen:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 64, width, 3), dtype=np.uint8)
    return Seen(images, rng.random((2, 70)) < 0.5, rng.random((2, 64, 8, width // 8)) < 0.5)


@pytest.mark.parametrize("width", [64, 40, 96])
def test_a_batch_comes_back_as_it_was_written(tmp_path: Path, width: int) -> None:
    folder, written = Folder(tmp_path), batch(width)
    assert folder.origin("t", "r", "b") is None
    folder.write("t", "r", "b", written, ORIGIN)
    read = folder.read("t", "r", "b")
    for name in ("images", "seen", "places"):
        assert np.array_equal(getattr(read, name), getattr(written, name))
    assert folder.origin("t", "r", "b") == ORIGIN
    assert folder.has("t", "r", "b", "a")
    assert not folder.has("t", "r", "b", "asked otherwise")
    assert [path.name for path in folder.path("t", "r", "b").parent.iterdir()] == ["b.npz"]


def test_a_batch_in_part_counts_as_none(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("t", "r", "b", batch(), ORIGIN)
    path = folder.path("t", "r", "b")
    path.write_bytes(path.read_bytes()[:-100])
    assert folder.origin("t", "r", "b") is None
    with pytest.raises(CorpusError, match="is damaged"):
        folder.read("t", "r", "b")


@pytest.mark.parametrize("fault", ["a page of zeros", "a byte turned"])
def test_a_batch_that_storage_damaged_is_told_in_one_line(tmp_path: Path, fault: str) -> None:
    folder = Folder(tmp_path)
    folder.write("t", "r", "b", batch(), ORIGIN)
    path = folder.path("t", "r", "b")
    sound, said = path.read_bytes(), []
    for start in range(0, len(sound) - 512, 512):
        damaged = bytearray(sound)
        if fault == "a byte turned":
            damaged[start] ^= 0xFF
        else:
            damaged[start : start + 512] = bytes(512)
        path.write_bytes(damaged)
        try:
            folder.read("t", "r", "b")
        except CorpusError as error:
            said.append(str(error))
    assert set(said) == {f"{path}: is damaged; delete it, and it is drawn again"}
    assert len(said) >= len(range(0, len(sound) - 512, 512)) - 1, "but for a byte of no meaning, such as a time"


def test_what_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_bytes(b"in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        Folder(tmp_path).write("t", "r", "b", batch(), ORIGIN)
