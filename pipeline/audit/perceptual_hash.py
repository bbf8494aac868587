"""A perceptual hash, for finding copies: the DCT hash of Zauner (2010, "Implementation and Benchmarking of Perceptual
Image Hash Functions", section 3.2), without its smoothing, in whole numbers.

The luminance is brought to 32x32 cells, each the mean over its area; the bits tell which of the 64 coefficients
(1..8, 1..8) of its discrete cosine transform lie above their median. Two pictures are the more alike the fewer of the
64 bits differ: copies that were encoded again or resized differ in a few, others in about 32.

Coefficients near the median are decided by roundings, which differ between machines where they are floats. Here cells
are rounded to 1/256 of a level, cosines to 2**-14, and all sums are of whole numbers, so that the same pixels have the
same hash on every machine. Pixels that differ by a level may still differ in a bit.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from pipeline.audit.luminance import luminance
from pipeline.audit.measure import Measure

CELLS = 32  # a side
FREQUENCIES = 8  # a side, from 1
FINE = 256  # parts of a level in a cell


class PerceptualHash(Measure):
    """Measures ``hash``: 64 bits, kept as int64, whose sign is the first of them."""

    behind = True

    def columns(self) -> Mapping[str, pa.DataType]:
        return {"hash": pa.int64()}

    def measure(self, images: np.ndarray, captions: Sequence[str]) -> Mapping[str, np.ndarray]:
        return {"hash": np.array([perceptual_hash(image) for image in images], np.int64)}


def perceptual_hash(image: np.ndarray) -> int:
    """Return the hash of uint8 ``(H, W, 3)``, as a signed number of 64 bits; 0 for a picture of one tone."""
    grey = luminance(image)
    areas = _parts(_parts(grey).T).T
    cells = (areas * (2 * FINE) + grey.size) // (2 * grey.size)
    cosines = _cosines()
    found = (cosines @ cells @ cosines.T).ravel()
    lower, upper = np.sort(found)[31:33]
    bits = 2 * found > lower + upper
    return int.from_bytes(np.packbits(bits).tobytes(), "big", signed=True)


def _parts(levels: np.ndarray) -> np.ndarray:
    """Return the sums of ``(N, M)`` whole numbers over 32 equal parts of the first axis, times 32: ``(32, M)``."""
    side = len(levels)
    sums = np.zeros((side + 1, levels.shape[1]), np.int64)
    np.cumsum(levels, axis=0, out=sums[1:])
    whole, rest = np.divmod(np.arange(CELLS + 1) * side, CELLS)  # where the parts begin, and the last ends
    begun = levels[np.minimum(whole, side - 1)].astype(np.int64)
    found: np.ndarray = np.diff(CELLS * sums[whole] + rest[:, None] * begun, axis=0)
    return found


@lru_cache(1)
def _cosines() -> np.ndarray:
    """Return int64 ``(8, 32)``: the cosines of the frequencies, times 2**14."""
    return np.array(
        [
            [round(math.cos(math.pi * k * (2 * n + 1) / (2 * CELLS)) * 2**14) for n in range(CELLS)]
            for k in range(1, FREQUENCIES + 1)
        ],
        np.int64,
    )
