"""The perceptual hash: the same on every machine, near for copies and far for others, whatever the sizes."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from pipeline.audit.luminance import luminance
from pipeline.audit.perceptual_hash import PerceptualHash, perceptual_hash


def pattern(height: int, width: int, seed: int = 1) -> np.ndarray:
    """A picture of whole numbers alone, smooth enough to have a look of its own."""
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    waves = [(x * x * (seed + c) // width + y * y * (3 - c) // height + x * y * seed // 64) % 256 for c in range(3)]
    return np.stack(waves, axis=2).astype(np.uint8)


def scene(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)


def bits(a: int, b: int) -> int:
    return ((a ^ b) & (2**64 - 1)).bit_count()


# Anything but whole numbers on the way would let these differ from machine to machine.
KNOWN = {
    (64, 64): "55aa54ad5ab54a95",
    (96, 48): "55aa4a95aa57ac5a",
    (257, 100): "047b6cdb94b5a44b",
    (8, 16): "8266f20d69d2a300",
    (1, 1): "0000000000000000",
}


@pytest.mark.parametrize("size", KNOWN)
def test_the_same_pixels_have_the_same_hash_on_every_machine(size):
    assert f"{perceptual_hash(pattern(*size)) & (2**64 - 1):016x}" == KNOWN[size]


def reference(image: np.ndarray) -> np.ndarray:
    """The bits by the definition, in floats: means over areas, cosines, median."""
    grey = luminance(image).astype(float)
    height, width = grey.shape

    def means(side: int) -> np.ndarray:
        edges = np.linspace(0, side, 33)
        pixels = np.arange(side)
        shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return shared.clip(0) / (side / 32)

    cells = means(height) @ grey @ means(width).T
    cosines = np.array([[math.cos(math.pi * k * (2 * n + 1) / 64) for n in range(32)] for k in range(1, 9)])
    found = (cosines @ cells @ cosines.T).ravel()
    return found > np.median(found)


@pytest.mark.parametrize("size", [(64, 64), (100, 37), (480, 640), (24, 20)])
def test_it_is_what_the_definition_says(size):
    for seed in range(5):
        image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
        ours = np.unpackbits(np.frombuffer(perceptual_hash(image).to_bytes(8, "big", signed=True), np.uint8))
        assert (ours != reference(image)).sum() <= 1  # one that lies at the median but for a rounding


def test_copies_are_near_and_other_pictures_far():
    hashes = []
    for seed in range(12):
        image = scene(seed)
        first = perceptual_hash(np.asarray(image))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=60)
        lighter = np.clip(np.asarray(image).astype(int) * 9 // 10 + 20, 0, 255).astype(np.uint8)
        for copy in (Image.open(buffer), image.resize((180, 180)), Image.fromarray(lighter)):
            assert bits(first, perceptual_hash(np.asarray(copy))) <= 6
        hashes.append(first)
    others = [bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(others) > 12
    assert 28 < np.mean(others) < 36


def test_a_picture_of_one_tone_has_none_and_every_other_half_of_its_bits():
    assert perceptual_hash(np.full((40, 56, 3), 200, np.uint8)) == 0
    assert bits(perceptual_hash(np.asarray(scene(3))), 0) == 32


def test_a_batch_has_signed_numbers_of_64_bits():
    images = np.stack([pattern(48, 48, seed) for seed in range(1, 9)])
    found = PerceptualHash("cpu").measure(images, [""] * 8)
    assert found["hash"].dtype == np.int64
    assert found["hash"].tolist() == [perceptual_hash(image) for image in images]
    assert {value < 0 for value in found["hash"].tolist()} == {True, False}
