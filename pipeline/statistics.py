"""Intervals for shares, and for ratios of times; scores beside thresholds. Arithmetic only."""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

Z95 = 1.959964  # of a 95 % interval
Z95_OF_THREE = 2.393980  # of three intervals that hold together with 95 % (Bonferroni)

# Student's t, two-sided 95 %, by degrees of freedom.
T95 = {4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 14: 2.145, 19: 2.093, 29: 2.045, 49: 2.010}


def rounded_down(score: float, digits: int = 2) -> str:
    """Return *score* to so many digits behind the point, rounded down: none seems to reach a threshold of no more
    digits that it does not reach."""
    return str(Decimal(str(score)).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return how many times *theirs* is of *ours*, and the ends of its 95 % interval: ``ratio``, ``low``, ``high``.

    It is the geometric mean of the ratios within each repeat, of which there are one more than ``T95`` has keys for.
    (The arithmetic mean of noisy ratios lies above 1 for sides that are equally fast.)
    """
    logs = [math.log(b / a) for a, b in zip(ours, theirs, strict=True)]
    half = T95[len(logs) - 1] * statistics.stdev(logs) / len(logs) ** 0.5
    low, middle, high = (math.exp(statistics.mean(logs) + shift) for shift in (-half, 0, half))
    return {"ratio": middle, "low": low, "high": high}


def wilson(hits: float, trials: float, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of *hits* in *trials*, sound near 0 and 1; (0, 1) where there were no trials.

    Wilson 1927, JASA 22:209, in the closed form of Brown, Cai & DasGupta 2001. Neither need be whole, where trials are
    those that dependent ones are worth. Raises ValueError if *hits* is not in
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


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share in 0..1 and its 95 % interval."""

    share: float
    low: float
    high: float


def prevalence(seen: tuple[int, int], sensitivity: tuple[int, int], specificity: tuple[int, int]) -> Share | None:
    """Return the share of pictures that show a thing, of which a detector saw it in *seen*, (hits, pictures).

    *sensitivity* is (seen, pictures that show it) and *specificity* (not seen, pictures that do not) of a calibration.
    Rogan & Gladen 1978, Am J Epidemiol 107:71: (p + Sp - 1) / (Se + Sp - 1), cut to 0..1. The interval is what the
    three Wilson intervals allow, each so wide that all hold together with 95 %. None where the detector tells nothing:
    it sees the thing no more often where it is than where it is not.
    """
    return _implied(lambda p, se, sp: (p + sp - 1) / (se + sp - 1), seen, sensitivity, specificity)


def missed(seen: tuple[int, int], sensitivity: tuple[int, int], specificity: tuple[int, int]) -> Share | None:
    """Return the share of those pictures that show the thing though the detector did not see it, among all in which it
    did not: (1 - Se) prevalence / (1 - p). Arguments, interval and None as in ``prevalence``."""

    def share(p: float, se: float, sp: float) -> float:
        return (1 - se) * (p + sp - 1) / ((se + sp - 1) * (1 - p)) if p < 1 else 1.0

    return _implied(share, seen, sensitivity, specificity)


def _implied(
    formula: Callable[[float, float, float], float],
    seen: tuple[int, int],
    sensitivity: tuple[int, int],
    specificity: tuple[int, int],
) -> Share | None:
    counts = (seen, sensitivity, specificity)
    if not all(trials for _, trials in counts):
        return None
    p, se, sp = (hits / trials for hits, trials in counts)
    if se + sp <= 1:
        return None
    corners = list(itertools.product(*(wilson(hits, trials, Z95_OF_THREE) for hits, trials in counts)))
    if any(se + sp <= 1 for _, se, sp in corners):
        return Share(share=_cut(formula(p, se, sp)), low=0.0, high=1.0)
    ends = [_cut(formula(*corner)) for corner in corners]  # in each of the three it only rises or only falls
    return Share(share=_cut(formula(p, se, sp)), low=min(ends), high=max(ends))


def _cut(share: float) -> float:
    return min(1.0, max(0.0, share))


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
