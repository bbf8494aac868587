"""Statistics of counted outcomes and of feature clouds. Arithmetic only: no models, no files."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


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


def wilson(hits: int, trials: int, confidence: float = 0.95) -> Proportion:
    """The score interval of a proportion (Wilson 1927, eq. as in Brown, Cai & DasGupta 2001), sound near 0 and 1.

    Raises ValueError if *hits* is not in 0..*trials*. No trials give the interval 0..1.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits in {trials} trials")
    if not trials:
        return Proportion(hits, trials, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, n = hits / trials, trials
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Proportion(hits, trials, 0.0 if hits == 0 else center - half, 1.0 if hits == trials else center + half)


def count(outcomes: np.ndarray) -> Proportion:
    """The proportion of true values in a boolean array of any shape."""
    return wilson(int(np.count_nonzero(outcomes)), int(outcomes.size))


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
