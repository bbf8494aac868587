"""The labelled pictures are read as they were labelled, and tell a seeing detector from a blind one."""

import json

import numpy as np
import pytest

from pipeline.diorama.detector import DioramaDetector
from pipeline.diorama.suite.labelled import FOLDER, judge_labelled, load_labelled, save_sheet
from pipeline.diorama.world import OBJECTS


def test_sheet_and_labels_belong_together():
    labelled = load_labelled()
    assert labelled.images.shape == (200, 64, 64, 3)
    assert labelled.shown.sum() > 250
    assert labelled.unclear.all(axis=1).sum() < 25
    first = json.loads((FOLDER / "labels.json").read_text())["labels"][2]
    assert {OBJECTS[i] for i in labelled.shown[2].nonzero()[0]} == set(first.split(", "))


def test_a_sheet_is_read_as_it_was_written_and_a_wrong_label_refused(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    save_sheet(images, tmp_path / "pictures.png")
    record = {"weights": "w", "labels": ["cat, tiger?", "?", ""] + ["dog"] * 17}
    (tmp_path / "labels.json").write_text(json.dumps(record))
    labelled = load_labelled(tmp_path)
    assert np.array_equal(labelled.images, images)
    assert labelled.shown[0, OBJECTS.index("cat")]
    assert labelled.unclear[0, OBJECTS.index("tiger")]
    assert labelled.unclear[1].all()
    assert not labelled.shown[2].any()
    (tmp_path / "labels.json").write_text(json.dumps(record | {"labels": ["unicorn"] * 20}))
    with pytest.raises(ValueError, match="unicorn"):
        load_labelled(tmp_path)


def test_both_detectors_see_most_of_what_is_there():
    scores = judge_labelled({which.upper(): DioramaDetector.load(which) for which in "ab"}, load_labelled())
    for which in "AB":
        assert scores[which]["labelled objects seen"].rate > 0.85
        assert scores[which]["pictures with a false alarm"].rate < 0.05
