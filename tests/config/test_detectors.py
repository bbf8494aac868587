"""The checkpoints of detectors are looked for where all that a config names is: beside it, or where one stands."""

from inspect import signature
from pathlib import Path

import pytest

from pipeline.audit.detector import Detector
from pipeline.audit.measure import Measure
from pipeline.config import load_config
from pipeline.config.identity import leaves
from pipeline.config.places import DETECTOR_PATHS, MEASURE_PATHS
from pipeline.errors import ConfigError
from pipeline.registry import DETECTORS, MEASURES, load_class

CONFIG = """
model: {path: diorama}
erasure: {concepts: [{name: cat}], recipe: []}
prompts: {source: p.txt}
output: {path: out}
audit: {detectors: [{detector: clip, options: {model: MODEL}}, {detector: nudenet}]}
"""


def config(folder: Path, model: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "p.txt").write_text("a cat\n")
    (folder / "c.yaml").write_text(CONFIG.replace("MODEL", model))
    return folder / "c.yaml"


def checkpoint(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def test_a_folder_beside_the_config_is_found_and_the_identity_knows_what_was_written(tmp_path, monkeypatch):
    checkpoint(tmp_path / "a" / "eye")
    monkeypatch.chdir(tmp_path)
    loaded = load_config(config(tmp_path / "a", "./eye"))
    assert loaded.audit.detectors[0].options["model"] == str(tmp_path / "a" / "eye")
    told = {key: value for key, value, _ in leaves(loaded, written=loaded.written)}
    assert told["audit.detectors[0].options"] == {"model": "./eye"}


def test_on_the_command_line_it_is_where_one_stands(tmp_path, monkeypatch):
    checkpoint(tmp_path / "eye")
    monkeypatch.chdir(tmp_path)
    file = config(tmp_path / "a", "./eye")
    with pytest.raises(ConfigError, match=r"audit.detectors\[0\].options.model: .*/a/eye is not there; .*/eye is, but"):
        load_config(file)
    loaded = load_config(file, ["audit.detectors=[{detector: clip, options: {model: ./eye}}]"])
    assert loaded.audit.detectors[0].options["model"] == str(tmp_path / "eye")


def test_a_hub_id_stays_one_unless_such_a_folder_lies_there(tmp_path):
    assert load_config(config(tmp_path / "a", "org/eye")).audit.detectors[0].options["model"] == "org/eye"
    checkpoint(tmp_path / "a" / "org" / "eye")
    found = load_config(config(tmp_path / "a", "org/eye")).audit.detectors[0].options["model"]
    assert found == str(tmp_path / "a" / "org" / "eye")


@pytest.mark.parametrize(
    ("kind", "table", "base", "paths"),
    [("detector", DETECTORS, Detector, DETECTOR_PATHS), ("measure", MEASURES, Measure, MEASURE_PATHS)],
)
def test_the_options_that_name_paths_are_those_of_what_looks_with_a_checkpoint(kind, table, base, paths):
    taken = {name: signature(load_class(kind, name, table, base)).parameters for name in table}
    assert {name for name, options in taken.items() if "revision" in options} == set(paths)
    for name, options in paths.items():
        assert options.keys() <= taken[name].keys(), name
