"""Thresholds keep their promise, counts are honest, and a calibration is for nothing but what was calibrated."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.audit import detector as detector_module
from pipeline.audit.calibration import (
    Calibrated,
    Calibration,
    Measured,
    fingerprint,
    looks_by,
    measure,
    term_digest,
)
from pipeline.audit.detector import Detector
from pipeline.audit.open_nsfw import OpenNsfw
from pipeline.concepts.term import Kind, Term
from pipeline.errors import ConfigError
from pipeline.registry import DETECTORS, load_class
from tests.eyes import Brightness

CAT = Term("cat", ("cat", "kitten"))


def test_a_threshold_lies_just_above_the_score_that_the_rate_allows():
    without = np.arange(99, dtype=np.float32) / 100  # .00 to .98
    measured = measure(CAT, np.float32([0.97, 0.985, 0.5, 0.999]), without, 0.02)
    assert 0.97 < measured.threshold < 0.9701  # of 99 the second highest, as 2 % of 100 are 2
    assert (measured.sensitivity, measured.specificity, measured.few) == ((2, 4), (98, 99), False)
    assert measured.false_alarms == 1
    assert measured.false_alarms_bound == pytest.approx(0.0470, abs=1e-3)  # of 1 in 99, Clopper and Pearson


def test_too_few_pictures_without_it_are_said_to_be_too_few():
    measured = measure(CAT, np.float32([0.9]), np.float32([0.1, 0.3]), 0.01)
    assert 0.3 < measured.threshold < 0.3001
    assert measured.few
    assert measured.specificity == (2, 2)
    assert measured.false_alarms_bound == pytest.approx(1 - 0.05**0.5)
    assert not measure(CAT, [], np.zeros(99, np.float32), 0.01).few


@pytest.mark.slow
def test_new_pictures_alarm_no_oftener_than_the_rate_and_the_bound_holds():
    """Over 4,000 calibrations: the mean rate is at most what was asked for, and 95 % are under their bound."""
    draw = np.random.default_rng(0)
    rates, over = [], 0
    for _ in range(4000):
        measured = measure(CAT, [], draw.random(199, np.float32), 0.02)
        rates.append(1 - measured.threshold)  # of uniform scores
        over += rates[-1] > measured.false_alarms_bound
    assert 0.0185 < np.mean(rates) < 0.0205  # 4 of 200
    assert 0.04 < over / 4000 < 0.06


def test_equal_scores_are_counted_alike_in_curve_and_counts():
    measured = measure(CAT, np.float32([0.2, 0.2, 0.8]), np.float32([0.2] * 150 + [0.1] * 49), 0.5)
    assert measured.sensitivity == (1, 3)
    assert measured.specificity == (199, 199)
    assert [(round(score, 4), *counts) for score, *counts in measured.curve] == [
        (0.8, 1, 0), (0.2, 1, 0), (0.2, 3, 150), (0.1, 3, 199),
    ]  # fmt: skip


def test_a_curve_of_many_scores_has_both_ends_and_no_more_points_than_are_drawn():
    draw = np.random.default_rng(1)
    measured = measure(CAT, draw.random(3000, np.float32), draw.random(5000, np.float32), 0.01)
    assert len(measured.curve) <= 201
    assert measured.curve[0][1] + measured.curve[0][2] == 1
    assert measured.curve[-1][1:] == (3000, 5000)


def test_no_picture_without_it_is_refused():
    with pytest.raises(ConfigError, match="'cat': no picture is labelled as without it"):
        measure(CAT, np.float32([0.5]), [], 0.01)


def calibration() -> Calibration:
    own = fingerprint(Brightness("cpu"), "own", {"cut": 0.3})
    measured = {"cat": measure(CAT, np.float32([0.9, 0.8]), np.float32([0.1, 0.2]), 0.5)}
    one = Calibrated(detector="own", fingerprint=own, about={}, concepts=measured)
    return Calibration(false_alarms=0.5, pictures=4, detectors=(one,))


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_bytes(calibration().write())
    loaded = Calibration.load(path)
    assert loaded == calibration()
    own = fingerprint(Brightness("cpu"), "own", {"cut": 0.3})
    assert loaded.of("f", "own", own, [CAT, Term("dog")]) == dict(calibration().detectors[0].concepts)


def test_one_detector_may_stand_in_it_several_times_with_other_concepts():
    held = calibration()
    (one,) = held.detectors
    measured = {"dog": measure(Term("dog"), [], np.float32([0.1]), 0.5)}
    both = replace(held, detectors=(one, replace(one, detector="own 2", concepts=measured)))
    assert set(both.of("f", "own 2", one.fingerprint, [CAT, Term("dog")])) == {"cat", "dog"}


def test_another_detector_or_another_question_is_refused():
    held = calibration()
    own = held.detectors[0].fingerprint
    other = fingerprint(Brightness("cpu"), "own", {"cut": 0.4})
    assert other != own
    for found, told in (
        (other, "own with other options"),
        ({**own, "code": "sha256:"}, "own with other code"),
        ({**own, "weights": "sha256:", "code": "sha256:"}, "own with other weights and code"),
        ({**own, "detector": "clip"}, "own, and not of clip"),
    ):
        with pytest.raises(ConfigError, match=rf"^c.json: is of {told}; calibrate it again$"):
            held.of("c.json", found["detector"], found, [CAT])
    for term in (Term("cat", ("cat",)), Term("cat", CAT.words, Kind.style)):
        with pytest.raises(ConfigError, match=r"^c.json: own was calibrated for 'cat' with other words, kind or ref"):
            held.of("c.json", "own", own, [term])


def test_code_that_prepares_pictures_is_part_of_what_was_calibrated(monkeypatch, tmp_path):
    for name, needed in (
        ("clip", {"clip.py", "checkpoint.py", "preparation.py"}),
        ("imagenet", {"imagenet.py", "efficientnet_lite.py"}),
        ("diorama", {"audit.py", "detector.py"}),
    ):
        files = looks_by(load_class("detector", name, DETECTORS, Detector))
        assert needed <= {file.name for file in files}
        assert Path(detector_module.__file__) not in files, "the contract looks at nothing"
    assert looks_by(Brightness) == [], "a user's own is among its weights"
    detector = OpenNsfw.__new__(OpenNsfw)
    detector.weights = tmp_path / "weights.onnx"
    detector.weights.write_bytes(b"1")
    before = fingerprint(detector, "open_nsfw", {})
    changed = tmp_path / "open_nsfw.py"
    source = Path(str(sys.modules[OpenNsfw.__module__].__file__)).read_text()
    monkeypatch.setattr(sys.modules[OpenNsfw.__module__], "__file__", str(changed))
    changed.write_text(source.replace('"""Yahoo', '"""By Yahoo') + "# more\n")
    assert fingerprint(detector, "open_nsfw", {}) == before
    changed.write_text(source.replace("SCALED, SIDE = 256", "SCALED, SIDE = 255"))
    assert {part for part, value in fingerprint(detector, "open_nsfw", {}).items() if value != before[part]} == {"code"}


def test_reference_pictures_are_known_by_what_is_in_them(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    term = Term("x", references=[tmp_path / "a.png"])
    before = term_digest(term)
    (tmp_path / "a.png").write_bytes(b"2")
    assert term_digest(term) != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("no JSON", r"is no calibration \(JSONDecodeError"),
        ("[1]", "is no calibration"),
        ('{"format": 1}', "is a calibration of format 1; expected 2: calibrate it again"),
        ('{"format": 2, "false_alarms": 0.1, "pictures": 1}', r"is no calibration \(KeyError: 'detectors'"),
    ],
)
def test_what_is_no_calibration_is_one_line(tmp_path, text, message):
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Calibration.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_counts_that_cannot_be_are_refused(tmp_path):
    held = json.loads(calibration().write())
    held["detectors"][0]["concepts"]["cat"]["sensitivity"] = [3, 2]
    (tmp_path / "c.json").write_text(json.dumps(held))
    with pytest.raises(ConfigError, match="3 of 2"):
        Calibration.load(tmp_path / "c.json")


def test_sensitivity_without_pictures_of_it_is_not_known():
    assert measure(CAT, [], np.zeros(9, np.float32), 0.1).found == (0.0, 1.0)
    assert isinstance(calibration().detectors[0].concepts["cat"], Measured)
