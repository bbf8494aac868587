"""NudeNet's part: what it is asked, and that its scores are the package's; on noise and the diorama's stickers only."""

import sys

import numpy as np
import pytest

from pipeline.audit.auditor import Auditor
from pipeline.audit.detector import Detector, load_detector
from pipeline.audit.nudenet import LABELS
from pipeline.concepts.concept import Concept
from pipeline.config.sections.audit import AuditConfig, DetectorConfig
from pipeline.diorama.render import sticker
from pipeline.errors import ConfigError

NUDENET = AuditConfig(detectors=[DetectorConfig(detector="nudenet")])


def load(**options) -> Detector:
    return load_detector(DetectorConfig(detector="nudenet", options=options), "cpu", "audit.detectors[0]")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {"nudity": ["FACE_FEMAL"]}}, "no label 'FACE_FEMAL' (did you mean 'FACE_FEMALE'?); expected some"),
        ({"labels": {"nudity": []}}, "options.labels.nudity: expected a list of NudeNet's labels"),
        (
            {"labels": {"nudity": "FACE_MALE"}},
            "options.labels.nudity: expected a list of NudeNet's labels",
        ),
        (
            {"labels": ["FACE_MALE"]},
            "options.labels: expected a list of NudeNet's labels for each concept",
        ),
        ({"label": {}}, "options.label: nudenet has no such option (did you mean 'labels'?)"),
    ],
)
def test_bad_options_give_one_line(options, message):
    with pytest.raises(ConfigError) as caught:
        load(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_where_it_is_not_installed_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nudenet", None)  # as if it were not there
    with pytest.raises(
        ConfigError,
        match=r"the package nudenet, which is not installed; it comes with the extra: `pip install -e '.\[nudenet\]'`",
    ):
        load()


def on_green(name: str) -> np.ndarray:
    """A sticker of the diorama on plain green, uint8 (32, 32, 3)."""
    tile = sticker(name)
    return ((tile[..., :3] * tile[..., 3:] + 0.8 * (1 - tile[..., 3:]) * [0.95, 1.1, 0.95]) * 255).astype(np.uint8)


def test_noise_and_things_without_a_body_score_near_nothing_and_always_the_same():
    pytest.importorskip("nudenet")
    auditor = Auditor.load(NUDENET, [Concept(name="nudity")], "cpu")
    auditor.check_size(160, 96)
    noise = np.random.default_rng(0).integers(0, 256, (9, 96, 160, 3), dtype=np.uint8)
    verdicts = auditor.judge(noise)
    assert all(verdict.scores["nudity"] < 0.05 and not verdict.found for verdict in verdicts)
    assert auditor.judge(noise) == verdicts
    assert auditor.judge(np.stack([on_green("bus"), on_green("bicycle")]))[0].scores["nudity"] < 0.1


def test_a_concept_without_labels_cannot_be_judged():
    pytest.importorskip("nudenet")
    with pytest.raises(ConfigError, match="NudeNet cannot judge the concept 'cat'"):
        Auditor.load(NUDENET, [Concept(name="cat")], "cpu")


@pytest.mark.parametrize("shape", [(32, 32), (32, 28), (28, 32)])
def test_scores_are_those_that_the_package_gives(shape: tuple[int, int]):
    """On faces of a cat and a panda, which it takes for a woman's. Its own resizing may differ by a level of 255."""
    package = pytest.importorskip("nudenet").NudeDetector()
    detector = load(labels={label: [label] for label in LABELS})
    images = np.stack([on_green(name)[: shape[0], : shape[1]] for name in ("panda", "cat", "bus")])
    seen = [{box["class"]: box["score"] for box in reversed(package.detect(image))} for image in images]
    assert any("FACE_FEMALE" in boxes for boxes in seen)
    scores = detector.score(images, LABELS)
    assert scores.dtype == np.float32
    for boxes, row in zip(seen, scores, strict=True):
        for label, score in boxes.items():
            assert row[LABELS.index(label)] == pytest.approx(score, abs=0.03)
