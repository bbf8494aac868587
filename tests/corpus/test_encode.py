"""Encoders: what comes back, and the same bytes every time, from any thread."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pipeline.config.schema import ImageFormat
from pipeline.corpus.encode import decode_image, encode_image, extension

X, Y = np.meshgrid(np.arange(48), np.arange(32))
PICTURE = np.stack([X * 5, Y * 7, 255 - X * 4], -1).astype(np.uint8)


@pytest.mark.parametrize("format", list(ImageFormat))
def test_round_trip(format: ImageFormat):
    data = encode_image(PICTURE, format, 95)
    error = np.abs(decode_image(data).astype(int) - PICTURE).max()
    assert error == 0 if format in (ImageFormat.png, ImageFormat.webp_lossless) else 0 < error < 24
    assert Image.open(io.BytesIO(data)).format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension(format)]


@pytest.mark.parametrize("format", list(ImageFormat))
def test_the_same_bytes_from_every_thread(format: ImageFormat):
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: encode_image(PICTURE, format, 90), range(8)))) == 1


def test_quality_counts_and_views_are_taken():
    assert len(encode_image(PICTURE, ImageFormat.jpg, 95)) > len(encode_image(PICTURE, ImageFormat.jpg, 30))
    turned = PICTURE[::-1, ::-1]
    assert np.abs(decode_image(encode_image(turned, ImageFormat.jpg, 95)).astype(int) - turned).max() < 24


@pytest.mark.parametrize("data", [b"", b"no picture", encode_image(PICTURE, ImageFormat.jpg, 90)[:200]])
def test_damaged_bytes_raise(data: bytes):
    with pytest.raises((ValueError, OSError)):
        decode_image(data)
