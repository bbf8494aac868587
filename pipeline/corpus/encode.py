"""Pixels to bytes and back. Thread-safe, and the GIL is released while a codec works. Knows nothing of torch."""

import io

import numpy as np
import simplejpeg
from PIL import Image

from pipeline.config.schema import ImageFormat


def extension(format: ImageFormat) -> str:
    """Return the file name extension, without a dot, of a format."""
    return "webp" if format is ImageFormat.webp_lossless else format.value


def encode_image(image: np.ndarray, format: ImageFormat, quality: int) -> bytes:
    """Encode an RGB picture, uint8 ``(H, W, 3)``. ``quality`` (1 to 100) is used by the lossy formats alone.

    The same picture gives the same bytes: no codec writes times or names. JPEG keeps colour at full resolution, since
    halved colour smears the edges that a detector looks at.
    """
    if format is ImageFormat.jpg:
        encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="444")
        return encoded
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    match format:
        case ImageFormat.png:
            picture.save(buffer, "PNG", compress_level=6)
        case ImageFormat.webp:
            picture.save(buffer, "WEBP", quality=quality, method=4)
        case ImageFormat.webp_lossless:
            picture.save(buffer, "WEBP", lossless=True, quality=50, method=4, exact=True)
    return buffer.getvalue()


def decode_image(data: bytes) -> np.ndarray:
    """Decode JPEG, PNG or WebP to uint8 ``(H, W, 3)``; raises ``ValueError`` or ``OSError`` for damaged bytes."""
    if simplejpeg.is_jpeg(data):
        decoded: np.ndarray = simplejpeg.decode_jpeg(data)
        return decoded
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
