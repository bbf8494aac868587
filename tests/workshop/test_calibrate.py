"""`lacuna calibrate` folders and tables in, thresholds, figures and a page out; bad input, a line."""

import csv
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.audit.calibration import Calibration
from pipeline.cli import main

CONFIG = """
model: {path: diorama}
erasure: {concepts: [{name: light}, {name: dark, audit: none}], recipe: []}
prompts: {template: "a {thing}", values: {thing: [cat, rocket]}}
generation: {steps: 1, size: [64, 64], batch_size: 2}
audit: {detectors: [{detector: "tests.eyes:Brightness"}], policy: quarantine}
output: {path: out/corpus, image_format: png}
cluster: {backend: local}
"""
# Brightness of pictures, in steps of 1/255: of those without "light" one is as bright as those with it.
WITHOUT, WITH = [*range(10, 209), 230], [200, 225, 240, 250]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    for folder, levels in (("none", WITHOUT), ("Light", WITH)):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
        for i, level in enumerate(levels):
            image = Image.fromarray(np.full((8 + i % 2, 8, 3), level, np.uint8))
            image.save(tmp_path / "pictures" / folder / f"{i:03}.png")
    return tmp_path


def calibrate(*args: str) -> int:
    return main(["calibrate", "config.yaml", *args])


def table(here, rows, columns=("path", "concept", "label", "reviewer")):
    with (here / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_folders_give_a_threshold_at_the_rate_and_counts_with_bounds(here, capsys):
    (here / "pictures/none/notes.txt").write_text("no picture")
    assert calibrate("pictures", "--false-alarms", "0.01", "-o", "c.json", "--page", "c.html") == 0
    (one,) = Calibration.load("c.json").detectors
    (measured,) = one.concepts.values()
    assert measured.threshold == pytest.approx(208 / 255, abs=1e-4)  # of 200 the second highest
    assert measured.threshold > np.float32(208 / 255)
    assert (measured.sensitivity, measured.specificity, measured.few) == ((3, 4), (199, 200), False)
    told = capsys.readouterr().out
    assert "204 labelled pictures; 1 file left out that is no picture" in told
    assert "finds 3 of 4 = 75.0% (30.1% to 95.4%); false alarms 1 of 200 (under 2.35%, at 95 %)" in told
    page = (here / "c.html").read_text()
    assert "finds 3 of 4" in page
    (points,) = re.findall(r'<polyline points="([^"]*)"', page)
    assert points.startswith("0.00,100.00 0.00,75.00")
    assert points.endswith(",0.00")


def test_a_run_takes_thresholds_from_it_and_tells_what_is_known(here):
    assert calibrate("pictures", "-o", "c.json") == 0
    assert main(["run", "config.yaml", "audit.detectors[0].calibration=c.json"]) == 0
    import yaml

    (facts,) = yaml.safe_load((here / "out/corpus/run.yaml").read_text())["detectors"]
    assert facts["thresholds"]["light"] == Calibration.load("c.json").detectors[0].concepts["light"].threshold
    assert facts["calibration"] == {"light": {"sensitivity": [3, 4], "specificity": [199, 200]}}


def test_a_concept_that_nobody_is_to_judge_is_told_only_where_it_has_labels_of_its_own(here, capsys):
    assert calibrate("pictures", "-o", "c.json") == 0
    assert "judged by no detector" not in capsys.readouterr().out, "the pictures of none are not for it"
    (here / "pictures/Light").rename(here / "pictures/dark")
    (here / "pictures/none").rename(here / "pictures/light")
    (here / "pictures/none").mkdir()
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(here / "pictures/none/0.png")
    assert calibrate("pictures", "-o", "c.json") == 0
    assert "labelled, and judged by no detector: dark" in capsys.readouterr().out


def test_a_calibration_of_another_detector_is_refused(here, capsys):
    assert calibrate("pictures", "-o", "c.json") == 0
    changed = ["audit.detectors[0].calibration=c.json", "audit.detectors[0].options={cut: 0.4}"]
    assert main(["run", "config.yaml", *changed]) == 2
    assert "is of tests.eyes:Brightness with other options; calibrate it again" in capsys.readouterr().err
    (here / "c.json").write_text('{"format": 1}')
    assert main(["run", "config.yaml", changed[0]]) == 2
    assert f"audit.detectors[0]: {here}/c.json: is a calibration of format 1; expected 2" in capsys.readouterr().err


def test_of_several_reviewers_the_majority_counts_and_disagreement_is_told(here, capsys):
    rows = [(f"pictures/none/{i:03}.png", "light", 0, "ann") for i in range(len(WITHOUT))]
    bright = [f"pictures/Light/{i:03}.png" for i in range(len(WITH))]
    rows += [(name, "light", 1, who) for name in bright[1:] for who in ("ann", "bob")]
    rows += [(bright[0], "light", 1, "ann"), (bright[0], "light", 0, "bob")]  # a tie
    rows += [(bright[1], "light", 0, "cem")]  # outvoted
    rows += [(bright[2], "light", 0, "dan"), (bright[2], "light", 1, "dan")]  # corrected
    table(here, rows)
    assert calibrate("labels.csv", "-o", "c.json") == 0
    told = capsys.readouterr().out
    assert "203 labelled pictures; 4 labels by several reviewers, who disagreed on 2 (1 without a majority" in told
    assert "; 1 answer given otherwise before by the same reviewer (the last counts)\n" in told
    assert Calibration.load("c.json").detectors[0].concepts["light"].sensitivity == (3, 3)


def test_keys_are_pictures_of_the_corpus_kept_or_quarantined(here):
    assert main(["run", "config.yaml", "audit.detectors[0].thresholds={light: 0.75}"]) == 0
    rows = pq.read_table("out/corpus/manifests").to_pylist()
    assert len(rows) == 2
    labels = pa.table(
        {"key": [row["key"] for row in rows], "concept": ["light"] * 2, "label": pa.array([0, 1], pa.int8())}
    )
    for row, status in zip(rows, ("ok", "quarantined"), strict=True):
        print(row["scores"], status)
    pq.write_table(labels, "labels.parquet")
    assert calibrate("labels.parquet", "-o", "c.json") == 0
    measured = Calibration.load("c.json").detectors[0].concepts["light"]
    scores = {round(score, 6) for score, _, _ in measured.curve}
    assert {round(row["scores"][0]["score"], 6) for row in rows} <= scores
    shutil.rmtree("out/corpus.evidence", ignore_errors=True)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            [("a.png", "lihgt", 1, "")],
            None,
            "labels.csv:2: 'lihgt' is no concept of the config (did you mean 'light'?)",
        ),
        (
            [("pictures/Light/000.png", "light", "yes", "")],
            None,
            "labels.csv:2: label is 'yes'; expected 1 (it shows the concept) or 0",
        ),
        (
            [("pictures/Light/000.png", "light", 1, ""), ("a.png", "light", 0, "")],
            None,
            "labels.csv:3: a.png: no such file",
        ),
        ([("config.yaml", "light", 0, "")], None, "config.yaml: is no picture that can be read"),
        ([("", "light", 0, "")], None, "labels.csv:2: names no picture; expected `path` or `key`"),
        ([("pictures/Light/000.png", "light", 1, "")], None, "'light': no picture is labelled as without it"),
        ([("pictures/Light/000.png", "dark", 1, "")], None, "no detector judges what is labelled: dark"),
        ([("000000", "light", 1)], ("key", "concept", "label"), "has no picture of the key '000000'"),
        ([("a.png", 1)], ("path", "label"), "labels.csv: has no column 'concept'; it has path, label"),
        ([("light", 1)], ("concept", "label"), "labels.csv: has neither a column 'path' nor 'key'"),
        (
            [("a.png", "light")],
            ("path", "concept", "label"),
            "labels.csv:2: has not as many fields as there are columns",
        ),
        ([], None, "labels.csv: holds no labelled picture"),
    ],
)
def test_labels_that_cannot_be_used_are_one_line(here, capsys, rows, columns, message):
    table(here, rows, *([columns] if columns else []))
    assert calibrate("labels.csv") == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lacuna: ")]
    assert len(told) == 1
    assert message in told[0]
    assert not (here / "calibration.json").exists()


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 0.5])
def test_numbers_that_are_no_label_are_one_line(here, capsys, label):
    rows = {"path": ["pictures/Light/000.png"], "concept": ["light"], "label": [label]}
    pq.write_table(pa.table(rows), "labels.parquet")
    assert calibrate("labels.parquet") == 2
    assert f"labels.parquet: row 0: label is '{label}'; expected 1" in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_one_line(here, capsys):
    (here / "pictures/none/000.png").write_text("no picture")
    assert calibrate("pictures") == 2
    assert "000.png: is no picture that can be read: its format is not known\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["config.yaml"], "config.yaml: expected a folder of pictures, or labels as .csv or .parquet"),
        (["out"], "out: expected a folder for each concept (light, dark) and one called 'none'"),
        (
            ["pictures", "audit={detectors: [], policy: keep}"],
            "audit.detectors: names no detector, so there is nothing to calibrate",
        ),
        (["pictures", "-o", "config.yaml/c.json"], "config.yaml/c.json: cannot be written"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line(here, capsys, args, message):
    (here / "out").mkdir()
    assert calibrate(*args) == 2
    assert message in capsys.readouterr().err


def test_a_folder_of_no_concept_is_refused_with_the_nearest(here, capsys):
    (here / "pictures/Light").rename(here / "pictures/ligth")
    assert calibrate("pictures") == 2
    assert "pictures/ligth: 'ligth' is no concept of the config (did you mean 'light'?)" in capsys.readouterr().err


def test_a_config_that_names_a_calibration_before_there_is_one_tells_how_it_is_made(here, capsys):
    key = "audit.detectors[0].calibration"
    assert calibrate("pictures", f"{key}=c.json", "-o", "c.json") == 2
    assert capsys.readouterr().err.strip().endswith(f"; `lacuna calibrate CONFIG PICTURES {key}=null` makes one")
    assert calibrate("pictures", f"{key}=null", "-o", "c.json") == 0
    assert calibrate("pictures", f"{key}=c.json", "-o", "c.json") == 0


@pytest.mark.parametrize("rate", ["0", "1", "nan", "few"])
def test_a_rate_that_is_none_is_refused(here, capsys, rate):
    with pytest.raises(SystemExit):
        calibrate("pictures", "--false-alarms", rate)
    assert f"{rate!r} is no rate between 0 and 1" in capsys.readouterr().err


def test_what_is_wanting_is_said(here, capsys):
    shutil.rmtree(here / "pictures/Light")
    for i in range(20, len(WITHOUT)):
        (here / f"pictures/none/{i:03}.png").unlink()
    assert calibrate("pictures", "--page", "c.html") == 0
    told = capsys.readouterr().out
    assert "too few pictures without it for false alarms of 0.01: light (20); expected at least 99." in told
    assert "no picture shows it, so how often it is missed is not known: light" in told
    assert "No picture shows it" in (here / "c.html").read_text()
    held = json.loads((here / "calibration.json").read_text())
    assert held["detectors"][0]["concepts"]["light"]["few"] is True
