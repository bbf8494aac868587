"""Intervals for shares. Arithmetic only."""

import math

Z95 = 1.959964  # of a 95 % interval


def wilson(hits: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of *hits* in *trials*, sound near 0 and 1; (0, 1) where there were no trials.

    Wilson 1927, JASA 22:209, in the closed form of Brown, Cai & DasGupta 2001. Raises ValueError if *hits* is not in
    0..*trials*.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits in {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    share = hits / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # The ends are exact where rounding would leave them a hair off.
    low = 0.0 if hits == 0 else max(0.0, (centre - half) / scale)
    return low, 1.0 if hits == trials else min(1.0, (centre + half) / scale)
