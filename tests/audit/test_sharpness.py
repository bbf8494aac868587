"""Sharpness and blankness: known pictures, the definition in floats, and the same on every machine."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.audit.luminance import luminance
from pipeline.audit.sharpness import Sharpness, blankness, sharpness


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


def test_luminance_is_pillows():
    image = np.random.default_rng(0).integers(0, 256, (32, 24, 3), np.uint8)
    assert (luminance(image) == np.asarray(Image.fromarray(image).convert("L"))).all()


def test_one_tone_is_neither_sharp_nor_anything_but_blank():
    flat = grey(np.full((16, 24), 90))
    assert Sharpness("cpu").measure(flat[None], [""]) == {"sharpness": [0], "blankness": [1]}


def test_an_edge_has_the_variance_that_one_reckons_by_hand():
    levels = np.zeros((6, 6), np.uint8)
    levels[:, 3:] = 100  # of 4x4 inner pixels one column sees +100 and the next -100
    assert sharpness(levels) == 100**2 / 2
    assert blankness(levels) == 0.5


def test_sharpness_is_the_variance_of_the_laplacian_and_less_out_of_focus():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8))
    levels = np.asarray(image.convert("L")).astype(float)
    inner = levels[1:-1, 1:-1]
    laplacian = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:] - 4 * inner
    assert sharpness(levels.astype(np.uint8)) == pytest.approx(laplacian.var(), rel=1e-12)
    found = [
        float(
            Sharpness("cpu").measure(np.asarray(image.filter(ImageFilter.GaussianBlur(r)))[None], [""])["sharpness"][0]
        )
        for r in (0, 1, 2, 4)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > 100 * found[3]


def test_a_little_noise_leaves_a_blank_picture_blank_and_a_gradient_is_none():
    noise = np.random.default_rng(2).integers(97, 104, (64, 64))
    assert blankness(noise.astype(np.uint8)) == 1
    assert blankness(np.tile(np.arange(256, dtype=np.uint8), (8, 1))) == 8 / 256


@pytest.mark.parametrize("size", [(3, 3), (8, 8), (8, 1000)])
def test_every_size_that_can_be_drawn_can_be_measured(size):
    image = np.random.default_rng(3).integers(0, 256, (1, *size, 3), np.uint8)
    found = Sharpness("cpu").measure(image, [""])
    assert found["sharpness"].dtype == found["blankness"].dtype == np.float32
    assert np.isfinite(found["sharpness"]).all()
    assert 0 < found["blankness"][0] <= 1
