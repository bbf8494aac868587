"""An encoded picture as a training script wants it."""

import io
import struct
from typing import Any, Literal, get_args

import numpy as np
import simplejpeg
import torch
from PIL import Image

Decode = Literal["uint8", "pil", "bytes"]
DECODES: tuple[str, ...] = get_args(Decode)
JPEG = b"\xff\xd8\xff"


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
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    except (ValueError, OSError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise Undecodable(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    return image if how == "pil" else torch.from_numpy(np.array(image))
