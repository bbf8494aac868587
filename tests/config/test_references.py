"""Reference pictures of a concept: found where the file says, known by what is in them."""

from pathlib import Path

import pytest

from pipeline.concepts.term import Kind
from pipeline.config import identity, load_config, to_public_yaml
from pipeline.config.concepts import concepts_of
from pipeline.errors import ConfigError

SETTLED = ("model.dtype=float32", "generation.size=[64, 64]", "generation.compile=none")
OWN = "{name: knife, kind: identity, references: [own/a.png], audit: none}"


@pytest.fixture
def referring(sound: Path) -> Path:
    (sound.parent / "own").mkdir()
    (sound.parent / "own/a.png").write_bytes(b"a")
    sound.write_text(sound.read_text().replace("{name: knife}", OWN))
    return sound


def load(path: Path, *overrides: str):
    return load_config(path, [*SETTLED, *overrides])


def test_they_are_relative_to_the_config(referring: Path):
    config = load(referring)
    knife = concepts_of(config.erasure)[1]
    assert knife.references == (referring.parent / "own/a.png",)
    assert (knife.kind, knife.audited, knife.everywhere) == (Kind.identity, False, False)
    again = referring.with_name("again.yaml")
    again.write_text(to_public_yaml(config))
    assert "own/a.png" in again.read_text()
    assert identity(load(again), "s") == identity(config, "s")


def test_in_a_list_they_are_relative_to_it(referring: Path):
    folder = referring.parent / "lists"
    folder.mkdir()
    (folder / "l.yaml").write_text("concepts: [{name: sketch, kind: style, references: [../own/a.png]}]")
    config = load(referring, f"erasure.lists=[{folder}/l.yaml]")
    sketch = concepts_of(config.erasure)[2]
    assert sketch.references[0].read_bytes() == b"a"
    assert sketch.everywhere
    again = referring.with_name("again.yaml")
    again.write_text(to_public_yaml(config))
    assert identity(load(again), "s") == identity(config, "s")


def test_their_content_is_in_the_identity_and_their_place_is_not(referring: Path):
    before = identity(load(referring), "s")
    moved = referring.with_name("b.png")
    moved.write_bytes(b"a")
    assert identity(load(referring, f"erasure.concepts[1].references=[{moved}]"), "s") == before
    moved.write_bytes(b"b")
    assert identity(load(referring, f"erasure.concepts[1].references=[{moved}]"), "s").digest != before.digest


def test_one_that_is_not_there_is_refused(referring: Path):
    (referring.parent / "own/a.png").unlink()
    with pytest.raises(ConfigError, match=r"erasure\.concepts\[1\]\.references\[0\]: .*own/a\.png: no such file"):
        load(referring)
