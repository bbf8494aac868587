"""The detectors keep the audit's contract, and the shipped ones see what is in fresh renders."""

import numpy as np
import pytest
import torch

from pipeline.diorama.detector import DETECTOR_PATH, DioramaDetector, presence
from pipeline.diorama.lexicon import BACKGROUNDS, OBJECTS, STYLES
from pipeline.diorama.render import FONT, render
from pipeline.diorama.train_detectors import calibrate, spoil, truth
from pipeline.diorama.world import EVALUATION_SEEDS, sample_scene
from pipeline.errors import LacunaError

BOTH = pytest.mark.parametrize("which", ["a", "b"])
needs_font = pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji is not installed")


@BOTH
def test_shapes_and_ranges(which):
    detector = DioramaDetector.load(which)
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    probabilities = detector.probabilities(images)
    assert probabilities.shape == (3, len(detector.classes))
    assert probabilities.dtype == torch.float32
    assert detector.classes == (*OBJECTS, *STYLES)
    assert set(detector.thresholds) == set(detector.classes)
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert detector.maps(images).shape == (3, len(OBJECTS), 8, 8)
    assert detector.features(images).ndim == 2
    assert torch.allclose(detector.styles(images).sum(dim=1), torch.ones(3))
    assert detector.backgrounds(images).shape == (3, len(BACKGROUNDS))
    assert torch.equal(probabilities, detector.probabilities(images))


@BOTH
def test_a_picture_is_judged_alike_in_any_company(which):
    detector = DioramaDetector.load(which)
    images = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    assert torch.allclose(detector.probabilities(images)[2:3], detector.probabilities(images[2:3]), atol=1e-5)


@needs_font
@BOTH
def test_sees_what_is_in_fresh_renders_and_where(which):
    scenes = [sample_scene(EVALUATION_SEEDS + 7_000_000 + i, style="plain") for i in range(64)]
    images = torch.from_numpy(np.stack([render(scene) for scene in scenes]))
    detector = DioramaDetector.load(which)
    target = truth(scenes)
    seen = detector.probabilities(images)[:, : len(OBJECTS)] >= 0.5
    assert (seen == target["present"].bool()).all(dim=1).float().mean() > 0.9
    rows, names = target["present"].nonzero(as_tuple=True)
    strongest = detector.maps(images)[rows, names].flatten(1).argmax(dim=1)
    assert target["cells"][rows, names].flatten(1).gather(1, strongest[:, None]).mean() > 0.95


def test_other_pictures_are_refused():
    detector = DioramaDetector.load("a")
    with pytest.raises(ValueError, match="uint8"):
        detector.probabilities(torch.zeros(1, 64, 64, 3))
    with pytest.raises(ValueError, match="64"):
        detector.probabilities(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))


def test_missing_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.diorama.detector.DETECTOR_PATH", tmp_path)
    with pytest.raises(LacunaError, match="make diorama"):
        DioramaDetector.load("a")


def test_one_stray_cell_is_no_object():
    maps = torch.full((1, 2, 8, 8), -10.0)
    maps[0, 0, 3, 3] = 12.0
    maps[0, 1, 2:4, 2:4] = 12.0
    assert presence(maps)[0, 0] < 0 < presence(maps)[0, 1]


def test_truth_covers_the_stickers_cells():
    scene = next(s for s in map(sample_scene, range(100)) if len(set(s.objects)) == 2)
    target = truth([scene])
    for name, (left, top, _, _) in zip(scene.objects, scene.boxes, strict=True):
        cells = target["cells"][0, OBJECTS.index(name)]
        assert cells.sum() == 16
        assert cells[top // 8, left // 8] == 1
    assert target["present"].sum() == 2


@BOTH
def test_spoiling_keeps_shape_and_does_spoil(which):
    rng = np.random.default_rng(0)
    clean = np.full((64, 64, 3), 128, np.uint8)
    clean[20:40, 20:40] = 10
    spoilt = [spoil(clean, rng, which) for _ in range(20)]
    assert all(p.shape == clean.shape and p.dtype == np.uint8 for p in spoilt)
    assert sum((p != clean).any() for p in spoilt) >= 8


@needs_font
def test_calibration_mends_a_wrong_temperature():
    scenes = [sample_scene(EVALUATION_SEEDS + 8_000_000 + i) for i in range(64)]
    images = np.stack([render(scene) for scene in scenes])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    detector = DioramaDetector.load("a")
    with torch.no_grad():
        detector.style_head.weight.mul_(0.1)
        detector.style_head.bias.mul_(0.1)
    calibrate(detector, pixels, scenes)
    assert detector.temperatures[1] < 0.5


def test_both_fit_in_a_few_megabytes():
    assert sum(path.stat().st_size for path in DETECTOR_PATH.glob("*.safetensors")) < 8e6
