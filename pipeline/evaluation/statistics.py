"""Statistics of counted outcomes, of paired pictures and of feature clouds. Arithmetic only: no models, no files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.statistics import Z95, wilson


@dataclass(frozen=True)
class Proportion:
    """*hits* out of *trials*, with the bounds of its Wilson interval."""

    hits: int
    trials: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Hits per trial; NaN where nothing was tried."""
        return self.hits / self.trials if self.trials else math.nan

    def __str__(self) -> str:
        if not self.trials:
            return "not measured"
        return f"{100 * self.rate:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}; {self.hits}/{self.trials})"


def proportion(hits: int, trials: int) -> Proportion:
    """*hits* of *trials* with their Wilson interval of 95 %; ValueError if *hits* is not in 0..*trials*."""
    return Proportion(hits, trials, *wilson(hits, trials))


def count(outcomes: np.ndarray) -> Proportion:
    """The proportion of true values in a boolean array of any shape."""
    return proportion(int(np.count_nonzero(outcomes)), int(outcomes.size))


@dataclass(frozen=True)
class Ratio:
    """How often something is seen in pictures that were changed, *hits*, to how often in the same pictures before,
    *base*; of *trials* pairs *both* have it. With the bounds of the interval of ``paired_ratio``."""

    hits: int
    base: int
    both: int
    trials: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Hits to base; NaN where there was nothing to lose."""
        return self.hits / self.base if self.base else math.nan

    def __str__(self) -> str:
        if not self.base:
            return "not measured"
        interval = f"{100 * self.low:.1f} to {100 * self.high:.1f}"
        return f"{100 * self.rate:.1f} % ({interval}; {self.hits}/{self.base} of {self.trials})"


def paired_ratio(after: np.ndarray, before: np.ndarray) -> Ratio:
    """Ratio of two proportions of the same pictures, with the hybrid score interval of 95 % of Bonett & Price 2006.

    Statist. Med. 25:3039, eq. 8: Wilson intervals of both proportions, at a z that is lowered by what their pairing
    tells, over the pairs in which either is seen. It is sound where both are 1, where a bootstrap has no width.
    """
    return _ratio(int(after.sum()), int(before.sum()), int((after & before).sum()), len(after))


def pooled_ratio(ratios: Sequence[Ratio]) -> Ratio:
    """The paired ratio of the pictures of all *ratios* together."""
    return _ratio(*(sum(getattr(r, count) for r in ratios) for count in ("hits", "base", "both", "trials")))


def pooled_proportion(proportions: Sequence[Proportion]) -> Proportion:
    """The proportion of the pictures of all *proportions* together."""
    return proportion(sum(p.hits for p in proportions), sum(p.trials for p in proportions))


def _ratio(hits: int, base: int, both: int, trials: int) -> Ratio:
    either = hits + base - both
    apart = either - both
    if not base:
        return Ratio(hits, base, both, trials, 0.0, math.inf)
    p1, p2 = (hits + 1) / (either + 2), (base + 1) / (either + 2)
    joint = math.sqrt((apart + 2) / ((hits + 1) * (base + 1)))
    z = Z95 * joint / (math.sqrt((1 - p1) / (hits + 1)) + math.sqrt((1 - p2) / (base + 1)))
    (low1, high1), (low2, high2) = wilson(hits, either, z), wilson(base, either, z)
    return Ratio(hits, base, both, trials, low1 / high2, high1 / low2)


def harmonic_mean(terms: np.ndarray) -> np.ndarray:
    """Harmonic mean over the first axis of terms in 0..1; NaN terms were not measured and are left out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean: np.ndarray = (~np.isnan(terms)).sum(axis=0) / np.nansum(1 / terms, axis=0)
        return mean


def dirichlet_shares(rng: np.random.Generator, outcomes: np.ndarray, draws: int) -> np.ndarray:
    """What the shares of true values may be, given boolean *outcomes* (columns, items): (columns, draws).

    Outcomes of one item stay together, so pairing survives: the 2^columns combinations have a Dirichlet prior of total
    weight 1, which is Jeffreys' for one column.
    """
    columns = len(outcomes)
    combinations = np.arange(2**columns)
    codes = (outcomes * (1 << np.arange(columns))[:, None]).sum(axis=0)
    counts = np.bincount(codes, minlength=2**columns)
    shares = rng.dirichlet(counts + 1 / 2**columns, size=draws)  # (draws, 2^columns)
    return np.stack([shares[:, (combinations >> i) & 1 == 1].sum(axis=1) for i in range(columns)])


def percentile_interval(samples: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled values; NaN where there are none."""
    known = samples[~np.isnan(samples)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures (H, W, 3) over *mask* (H, W); infinite where they are equal.

    NaN where the mask is empty.
    """
    if not mask.any():
        return math.nan
    error = float(np.mean((a[mask].astype(np.float64) - b[mask]) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def macro_f1(seen: np.ndarray, true: np.ndarray) -> float:
    """Mean over classes of F1, from boolean (pictures, classes); classes without any truth or sighting are left out."""
    hits = (seen & true).sum(axis=0)
    both = seen.sum(axis=0) + true.sum(axis=0)
    used = both > 0
    return float(np.mean(2 * hits[used] / both[used])) if used.any() else math.nan


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two boolean arrays of one shape: agreement beyond chance, 1 where both never differ."""
    agreed = float(np.mean(a == b))
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return 1.0 if chance == 1 else (agreed - chance) / (1 - chance)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the normal distributions fitted to two clouds (n, D) (Heusel et al. 2017, eq. 6).

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``; biased upwards for small n, so compare equal n only.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # tr (S_a S_b)^(1/2) is the sum of the roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)
