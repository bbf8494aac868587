"""The statistics agree with values worked out elsewhere and with their own limits."""

import numpy as np
import pytest

from pipeline.evaluation.statistics import count, frechet, kappa, macro_f1


def test_count_and_its_text():
    assert str(count(np.array([True, False, True, True]))).startswith("75.0 % (")
    assert str(count(np.zeros(0, bool))) == "not measured"


def test_macro_f1_weighs_classes_equally():
    true = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    seen = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]], bool)
    assert macro_f1(true, true) == 1
    assert macro_f1(seen, true) == 0.5


def test_kappa_is_zero_by_chance_and_one_in_agreement():
    rng = np.random.default_rng(0)
    a, b = rng.random(20_000) < 0.3, rng.random(20_000) < 0.3
    assert abs(kappa(a, b)) < 0.03
    assert kappa(a, a) == 1
    assert kappa(np.zeros(4, bool), np.zeros(4, bool)) == 1


def test_frechet_of_shifted_and_scaled_normals():
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(50_000, 3))
    assert frechet(cloud, cloud) == pytest.approx(0, abs=1e-9)
    assert frechet(cloud, cloud + 2) == pytest.approx(12)
    assert frechet(cloud, 3 * cloud) == pytest.approx(3 * 4, rel=0.02)  # (3 - 1)^2 per axis
