"""An encoded picture as a training script wants it."""

import io
import struct
from typing import Any, Literal, get_args

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError

Decode = Literal["uint8", "pil", "bytes"]
DECODES: tuple[str, ...] = get_args(Decode)
JPEG = b"\xff\xd8\xff"


# What decoders raise on damaged bytes.
_ERRORS = (ValueError, OSError, SyntaxError, struct.error, Image.DecompressionBombError)


class Undecodable(ValueError):
    """Bytes that are no whole picture."""


def decode(data: bytes, how: Decode) -> Any:
    """Return the picture *data*: ``uint8`` a tensor (H, W, 3), RGB; ``pil`` a Pillow image in RGB; ``bytes`` as it is.

    Raises ``Undecodable`` for one that is damaged, which ``bytes`` does not see.
    """
    if how == "bytes":
        return data
    try:
        if how == "uint8" and data.startswith(JPEG):
            return torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB"))
        image = _opened(data)
    except _ERRORS as error:
        raise _undecodable(error) from error
    return image if how == "pil" else torch.from_numpy(np.array(image))


def decode_into(data: bytes, pixels: np.ndarray) -> None:
    """Write the picture *data* to *pixels* (H, W, 3), uint8. Raises ``Undecodable``, also for one of another size."""
    try:
        if data.startswith(JPEG):
            # One that is larger than its place is an error of the decoder.
            size = simplejpeg.decode_jpeg(data, "RGB", buffer=pixels).shape
        else:
            image = np.asarray(_opened(data))
            size = image.shape
            if size == pixels.shape:
                pixels[:] = image
    except _ERRORS as error:
        raise _undecodable(error) from error
    if size != pixels.shape:
        raise Undecodable(f"is {size[0]}x{size[1]}, and its manifest says {pixels.shape[0]}x{pixels.shape[1]}")


def _opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("RGB")


def _undecodable(error: Exception) -> Undecodable:
    if isinstance(error, UnidentifiedImageError):  # which names an object in memory
        return Undecodable("is no picture of a known kind")
    return Undecodable(str(error).splitlines()[0] if str(error) else type(error).__name__)
