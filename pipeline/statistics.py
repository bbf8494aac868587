"""Intervals for shares. Arithmetic only."""

import math
from collections.abc import Callable

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


def binomial_tail(hits: int, trials: int, share: float) -> float:
    """Return the chance of *hits* or more in *trials*, each of which succeeds with probability *share* in 0..1."""
    if hits <= 0:
        return 1.0
    if hits > trials or share <= 0:
        return 0.0
    if share >= 1:
        return 1.0
    if hits > trials * share:
        return _falling(hits, trials, share)
    return 1 - _falling(trials - hits + 1, trials, 1 - share)  # of as many failures


def _falling(hits: int, trials: int, share: float) -> float:
    """Return the chance of *hits* or more, which are more than are expected: each further one is less likely."""
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    term = math.exp(ways + hits * math.log(share) + (trials - hits) * math.log1p(-share))
    total = 0.0
    for k in range(hits, trials + 1):
        total += term
        term *= (trials - k) / (k + 1) * share / (1 - share)
        if term < total * 1e-17:
            break
    return min(1.0, total)


def clopper_pearson(hits: int, trials: int, level: float) -> tuple[float, float]:
    """Return the lower and the upper bound of a share, each wrong with a chance of at most *level* (one-sided).

    Clopper & Pearson 1934, Biometrika 26:404: exact, whatever the share; (0, 1) where there were no trials. By
    bisection, to 2^-40.
    """
    low = 0.0 if hits == 0 else _crossing(lambda share: binomial_tail(hits, trials, share) >= level)
    high = 1.0 if hits == trials else _crossing(lambda share: 1 - binomial_tail(hits + 1, trials, share) < level)
    return low, high


def _crossing(above: Callable[[float], bool]) -> float:
    """Return the least share in 0..1 from which on *above* holds."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return high
