"""Sharpness and blankness: is a picture out of focus, and is there anything in it?

- ``sharpness``: the variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) of the luminance, whose levels are 0 to
  255, in squared levels. The kernel is [0 1 0; 1 -4 1; 0 1 0], and the outermost pixels, which have not all neighbours,
  are left out. It is of the picture's own pixels: compare it between pictures of one size.
- ``blankness``: the share of the pixels that lie in the fullest span of 8 neighbouring levels of the 256 of luminance,
  1 for a picture of one tone.

Both are reckoned in whole numbers, and are the same on every machine.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import pyarrow as pa

from pipeline.audit.luminance import luminance
from pipeline.audit.measure import Measure

SPAN = 8  # levels


class Sharpness(Measure):
    """Measures ``sharpness`` and ``blankness``."""

    behind = True

    def columns(self) -> Mapping[str, pa.DataType]:
        return {"sharpness": pa.float32(), "blankness": pa.float32()}

    def measure(self, images: np.ndarray, captions: Sequence[str]) -> Mapping[str, np.ndarray]:
        grey = [luminance(image) for image in images]
        return {
            "sharpness": np.array([sharpness(levels) for levels in grey], np.float32),
            "blankness": np.array([blankness(levels) for levels in grey], np.float32),
        }


def sharpness(levels: np.ndarray) -> float:
    """Return the variance of the Laplacian of *levels*, uint8 ``(H, W)`` of 3 pixels a side at least."""
    grey = levels.astype(np.int32)
    edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    count, total = edges.size, int(edges.sum(dtype=np.int64))
    squares = int(np.square(edges).sum(dtype=np.int64))
    return float(Fraction(count * squares - total**2, count**2))


def blankness(levels: np.ndarray) -> float:
    """Return the share of *levels*, uint8 ``(H, W)``, in the fullest ``SPAN`` of them."""
    counts = np.bincount(levels.ravel(), minlength=256)
    return float(np.convolve(counts, np.ones(SPAN, np.int64), "valid").max() / levels.size)
