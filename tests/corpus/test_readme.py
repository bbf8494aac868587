"""pipeline/corpus/README.md: its table of columns is the schema, its examples run, its readers are the card's."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.audit.quality import Quality
from pipeline.config.sections.audit import QualityConfig
from pipeline.corpus import finish, layout, open_store, require_run_record
from pipeline.corpus.commit import committed
from pipeline.corpus.manifest import schema
from pipeline.corpus.readers import readers
from pipeline.registry import MEASURES
from tests import tiny_eyes
from tests.corpus.conftest import SAMPLES, make_corpus

README = Path(layout.__file__).with_name("README.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.M | re.S)
    assert found is not None, title
    return found[1]


def cells(title: str) -> list[list[str]]:
    """The rows of a section's table, without its head."""
    rows = [line.strip().strip("|").split(" | ") for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.fixture
def path(tmp_path) -> str:
    path = str(tmp_path / "corpus")
    make_corpus(path, {})
    finish(path)
    return path


def test_the_table_of_columns_is_the_schema():
    described = [(name, kind, null) for name, kind, null, meaning in cells("Manifests") if meaning]
    assert described == [(f"`{f.name}`", f"`{f.type}`", "yes" if f.nullable else "no") for f in schema()]


def test_the_table_of_quality_is_what_the_measures_fill(tmp_path):
    options = {"model": str(tiny_eyes.clip(tmp_path / "clip"))}
    save_file({"weight": torch.ones(16)}, tmp_path / "head.safetensors")
    head = {"head": str(tmp_path / "head.safetensors")}
    looking = {"clip": options, "aesthetic": options | head, "embedding": options}
    found = Quality.load([QualityConfig(measure=name, options=looking.get(name, {})) for name in MEASURES], "cpu")
    filled = {
        (f"`{name}`", f"`{type_}`".replace("[16]", "[N]"), f"`{one.name}`")
        for one in found.measures
        for name, type_ in one.columns.items()
    }
    assert {tuple(row[:3]) for row in cells("Quality")} == filled
    assert all(row[3] for row in cells("Quality"))


def example(title: str) -> str:
    found = re.search(rf"^{title}[^\n]*:\n\n```python\n(.*?)```$", section("Manifests"), re.M | re.S)
    assert found is not None, title
    return found[1]


def run(path: str, *titles: str) -> dict:
    names = {"path": path}
    for title in titles:
        exec(example(title), names)
    return names


def test_the_example_of_pyarrow_and_a_picture_by_its_row(path):
    names = run(path, "pyarrow", "A picture by its row")
    assert len(names["kept"]) == 3 * (SAMPLES - 2)
    assert names["picture"].startswith(b"\x89PNG")
    assert names["picture"].endswith(b"IEND\xaeB`\x82")


def test_the_example_of_pandas(path):
    pytest.importorskip("pandas")
    assert run(path, "pandas")["fates"].to_dict() == {
        ("failed", "nan"): 3,
        ("ok", ""): 12,
        ("quarantined", "cat"): 3,
    }


@pytest.mark.skipif(importlib.util.find_spec("duckdb") is None, reason="pip install -e '.[readers]'")
def test_the_example_of_duckdb(path):
    ((concept, pictures, highest),) = run(path, "DuckDB")["scores"]
    assert (concept, pictures) == ("cat", 12)
    assert highest == pytest.approx(0.1)


@pytest.mark.skipif(importlib.util.find_spec("polars") is None, reason="pip install -e '.[readers]'")
def test_the_example_of_polars(path):
    lost = run(path, "Polars")["lost"]
    assert sorted(lost["status"].to_list()) == ["failed"] * 3 + ["quarantined"] * 3
    assert lost.columns == ["key", "status", "reason", "prompt"]


def test_the_table_of_readers_has_the_lines_of_the_card(path):
    """Ours has a section of its own."""
    store = open_store(path)
    _, *others = readers(require_run_record(store), list(committed(store).values()))
    table = {row[0]: row[1] for row in cells("In other readers")}
    assert list(table) == [lines.reader for lines in others]
    for lines in others:
        known = lines.code.replace('"png"', '"jpg"')
        for part in table[lines.reader].strip("`").rstrip(")").split("..."):
            assert part.strip() in known, lines.reader


def test_the_places_are_those_of_the_format(path):
    store = open_store(path)
    named = " ".join(row[0] for row in cells("What lies where"))
    for name in (layout.RUN, layout.CARD, layout.REPORT, layout.wids(layout.FORMAT), layout.dali(0, layout.FORMAT)):
        assert store.exists(name)
        assert f"`{name}`" in named
    for name in (layout.tar(0), layout.manifest(0), layout.commit(0)):
        assert f"`{name}`" in named
