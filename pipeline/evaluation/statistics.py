"""Statistics of counted outcomes, of paired pictures and of feature clouds. Arithmetic only: no models, no files."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.statistics import Z95, wilson


@dataclass(frozen=True)
class Proportion:
    """*hits* out of *trials*, with the bounds of its Wilson interval: that of *effective* independent trials."""

    hits: int
    trials: int
    low: float
    high: float
    effective: float

    @property
    def rate(self) -> float:
        """Hits per trial; NaN where nothing was tried."""
        return self.hits / self.trials if self.trials else math.nan

    def __str__(self) -> str:
        if not self.trials:
            return "not measured"
        return f"{100 * self.rate:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}; {self.hits}/{self.trials})"


def proportion(hits: int, trials: int, effective: float | None = None) -> Proportion:
    """*hits* of *trials* with the Wilson interval of 95 % of *effective* trials, by default all of them.

    ValueError if *hits* is not in 0..*trials*.
    """
    size = trials if effective is None else effective
    share = size / trials if trials else 1.0
    return Proportion(hits, trials, *wilson(hits * share, trials * share), size)


def count(outcomes: np.ndarray, clusters: Sequence[Hashable] | None = None) -> Proportion:
    """The proportion of true values in a boolean array of any shape; with *clusters*, of which each item is, in one of
    one dimension, its interval is that of ``effective_size``."""
    size = None if clusters is None else effective_size(outcomes, clusters)
    return proportion(int(np.count_nonzero(outcomes)), int(outcomes.size), size)


def effective_size(values: np.ndarray, clusters: Sequence[Hashable]) -> float:
    """Return how many independent trials *values* ``(n,)`` are worth, items of one of the *clusters* being alike.

    That is n over the design effect 1 + (sum of squared sizes / n - 1) times the intraclass correlation (Kish 1965),
    which analysis of variance estimates (Donner 1986, Int. Stat. Rev. 54:67), and less for the degrees of freedom of
    that estimate (Korn & Graubard 1998, Survey Methodology 24:193; Franco et al. 2019, JSSAM 7:334, have it with
    Wilson's interval). Where all values are the same nothing tells how alike a cluster is, so each counts once: what is
    said of 15 words is then said of 15, however many pictures there are of each.
    """
    n = len(values)
    numbers: dict[Hashable, int] = {}
    of = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)
    sizes = np.bincount(of)
    k, squares = len(sizes), float((sizes**2).sum())
    if k == n:
        return n
    if k == 1 or bool((values == values[0]).all()):
        return n * n / squares
    means = np.bincount(of, weights=values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (k - 1)
    within = float(((values - means[of]) ** 2).sum()) / (n - k)
    size = (n - squares / n) / (k - 1)
    alike = min(1.0, max(0.0, (between - within) / (between + (size - 1) * within)))
    return float(n / (1 + (squares / n - 1) * alike) * (Z95 / _student(k - 1)) ** 2)


def _student(freedom: float) -> float:
    """Return the upper quantile of 97.5 % of Student's t (Abramowitz & Stegun 1964, 26.7.5)."""
    z = Z95
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


@dataclass(frozen=True)
class Ratio:
    """How often something is seen in pictures that were changed, *hits*, to how often in the same pictures before,
    *base*; of *trials* pairs *both* have it. With the bounds of the interval of ``paired_ratio``, which is that of
    *effective* independent pairs."""

    hits: int
    base: int
    both: int
    trials: int
    low: float
    high: float
    effective: float

    @property
    def rate(self) -> float:
        """Hits to base; NaN where there was nothing to lose."""
        return self.hits / self.base if self.base else math.nan

    def __str__(self) -> str:
        if not self.base:
            return "not measured"
        interval = f"{100 * self.low:.1f} to {100 * self.high:.1f}"
        return f"{100 * self.rate:.1f} % ({interval}; {self.hits}/{self.base} of {self.trials})"


def paired_ratio(after: np.ndarray, before: np.ndarray, clusters: Sequence[Hashable] | None = None) -> Ratio:
    """Ratio of two proportions of the same pictures, with the hybrid score interval of 95 % of Bonett & Price 2006.

    Statist. Med. 25:3039, eq. 8: Wilson intervals of both proportions, at a z that is lowered by what their pairing
    tells, over the pairs in which either is seen. It is sound where both are 1, where a bootstrap has no width. With
    *clusters* it is that of as many pairs as theirs are worth (``effective_pairs``).
    """
    size = len(after) if clusters is None else effective_pairs(after, before, clusters)
    return _ratio(int(after.sum()), int(before.sum()), int((after & before).sum()), len(after), size)


def effective_pairs(after: np.ndarray, before: np.ndarray, clusters: Sequence[Hashable]) -> float:
    """Return ``effective_size`` for the ratio of *after* to *before*, of whose linear part a pair's share is after less
    ratio times before."""
    base = before.sum()
    return effective_size(after - after.sum() / base * before if base else after.astype(float), clusters)


def pooled_ratio(ratios: Sequence[Ratio]) -> Ratio:
    """The paired ratio of the pictures of all *ratios* together."""
    hits, base, both, trials = (sum(getattr(r, count) for r in ratios) for count in ("hits", "base", "both", "trials"))
    return _ratio(hits, base, both, trials, _pooled_size(ratios))


def pooled_proportion(proportions: Sequence[Proportion]) -> Proportion:
    """The proportion of the pictures of all *proportions* together."""
    return proportion(sum(p.hits for p in proportions), sum(p.trials for p in proportions), _pooled_size(proportions))


def _pooled_size(parts: Sequence[Proportion] | Sequence[Ratio]) -> float:
    """Return the independent trials that *parts*, weighted by their trials, are worth together."""
    spread = sum(part.trials**2 / part.effective for part in parts if part.trials)
    return sum(part.trials for part in parts) ** 2 / spread if spread else 0.0


def _ratio(hits: int, base: int, both: int, trials: int, effective: float) -> Ratio:
    if not base:
        return Ratio(hits, base, both, trials, 0.0, math.inf, effective)
    h, b, two = (number * effective / trials for number in (hits, base, both))
    either = h + b - two
    apart = either - two
    p1, p2 = (h + 1) / (either + 2), (b + 1) / (either + 2)
    joint = math.sqrt((apart + 2) / ((h + 1) * (b + 1)))
    z = Z95 * joint / (math.sqrt((1 - p1) / (h + 1)) + math.sqrt((1 - p2) / (b + 1)))
    (low1, high1), (low2, high2) = wilson(min(h, either), either, z), wilson(min(b, either), either, z)
    return Ratio(hits, base, both, trials, low1 / high2, high1 / low2, effective)


def harmonic_mean(terms: np.ndarray) -> np.ndarray:
    """Harmonic mean over the first axis of terms in 0..1; NaN terms were not measured and are left out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean: np.ndarray = (~np.isnan(terms)).sum(axis=0) / np.nansum(1 / terms, axis=0)
        return mean


def dirichlet_shares(
    rng: np.random.Generator, outcomes: np.ndarray, draws: int, effective: float | None = None
) -> np.ndarray:
    """What the shares of true values may be, given boolean *outcomes* (columns, items): (columns, draws).

    Items are worth *effective* independent ones, by default all of them.

    Outcomes of one item stay together, so pairing survives: the 2^columns combinations have a Dirichlet prior of total
    weight 1, which is Jeffreys' for one column.
    """
    columns = len(outcomes)
    combinations = np.arange(2**columns)
    codes = (outcomes * (1 << np.arange(columns))[:, None]).sum(axis=0)
    counts = np.bincount(codes, minlength=2**columns) * (1.0 if effective is None else effective / len(codes))
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
