"""What a word's pictures say: it means a concept, it implies it, or it is left alone. Counts alone.

A detector finds a concept in k of the n pictures that were drawn of a word. The word

- *means* the concept where the lower 95 % bound of its rate is at least half the rate of the concept's own name;
- *implies* it where its rate is above that of all other words at a false-discovery rate of 1 % over the whole table
  (Benjamini & Hochberg 1995);
- is *left* alone otherwise.

Words are drawn in rounds: twice as many pictures each time, of those words that are still open. Whoever looks ``looks``
times and stops when he likes finds something by chance as often as ``looks`` who look once, so every bound and every p
is taken at a level divided by the number of looks (Bonferroni), and holds whenever one stops.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np

from pipeline.statistics import binomial_tail, clopper_pearson

LEVEL = 0.05  # of the bounds, one-sided
DISCOVERY = 0.01  # the share of false ones among the words that are said to imply a concept
OPEN = 0.05  # a word whose rate differs from chance at this level, or from half the name's does not, is drawn on
ROUNDS = 4  # of drawing, each with twice the pictures of the one before
PROVABLE = 0.5  # the rate of a concept's own name from which on pictures can tell what other words mean
RULES = (
    "A word means a concept where its pictures show it at least half as often as those of the concept's name (lower "
    f"{100 * (1 - LEVEL):.0f} % bound); it implies it where they do more often than those of other words (false "
    f"discoveries: {100 * DISCOVERY:.0f} % of the whole table). Bounds allow for every look, and a concept whose own "
    "name shows it in fewer than half of its pictures is not judged."
)


class Verdict(StrEnum):
    """What became of a word for a concept."""

    means = "means"
    implies = "implies"
    leave = "leave"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One word beside one concept: *hits* of *pictures* show it; the 95 % interval of the rate allows for all looks.

    ``p`` is the chance that a word which has nothing to do with the concept has so many hits, at any of the looks.
    """

    hits: int
    pictures: int
    low: float
    high: float
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class Table:
    """Counts of a sweep: *hits* and *pictures* ``(words, concepts)``, int64, and the *rates* ``(concepts,)`` of the
    concepts' own names, float64."""

    hits: np.ndarray
    pictures: np.ndarray
    rates: np.ndarray
    looks: int

    @property
    def provable(self) -> np.ndarray:
        """Which concepts' names show in at least half of their pictures ``(concepts,)``, bool; no other is judged."""
        provable: np.ndarray = self.rates >= PROVABLE
        return provable

    def meant(self) -> np.ndarray:
        """Return which words mean which concepts ``(words, concepts)``, bool."""
        low, _ = self._bounds()
        meant: np.ndarray = (low >= self.rates / 2) & self.provable & (self.pictures > 0)
        return meant

    def chance(self) -> np.ndarray:
        """Return how often a picture of any other word shows each concept ``(concepts,)``.

        Of the words that do not stand out. Which these are depends on the rate itself, so both are found in turn, from
        above: a word that stands out against a higher rate does so against a lower one too.
        """
        apart = self.meant()
        while True:
            rates = np.array([self._rate(~apart[:, c], c) for c in range(len(self.rates))])
            now = apart | (self._p(rates) <= LEVEL / max(1, len(apart)))
            if (now == apart).all():
                return rates
            apart = now

    def p_values(self) -> np.ndarray:
        """Return, for each word and concept, the chance of so many hits where the word has nothing to do with it."""
        return self._p(self.chance())

    def implied(self) -> np.ndarray:
        """Return which words imply which concepts and mean none of those ``(words, concepts)``, bool."""
        p, told = self.p_values(), (self.pictures > 0) & self.provable
        order = np.sort(p[told])
        if not len(order):
            return np.zeros(told.shape, bool)
        under = np.flatnonzero(order <= DISCOVERY * np.arange(1, len(order) + 1) / len(order))
        limit = order[under[-1]] if len(under) else -1.0
        found: np.ndarray = (p <= limit) & told & ~self.meant()
        return found

    def open(self) -> np.ndarray:
        """Return which words more pictures may still decide ``(words,)``, bool.

        That is where a concept was seen more often than by chance, the word does not mean it yet and still may; or may
        be told to imply it, if more pictures go on like this.
        """
        p = self.p_values()
        fewer = np.stack([self._fewer(c) for c in range(len(self.rates))], 1)
        may_mean = (self.hits > 0) & (fewer > OPEN) & ~self.meant()
        may_imply = (p <= OPEN) & ~self.meant() & ~self.implied()
        still_open: np.ndarray = ((may_mean | may_imply) & self.provable).any(1)
        return still_open

    def open_words(self, words: Sequence[str]) -> list[str]:
        """Return those of *words*, the names of the rows, that are open."""
        return [word for word, is_open in zip(words, self.open().tolist(), strict=True) if is_open]

    def judge(self) -> list[list[Judged]]:
        """Return the verdict on each word (outer) for each concept (inner)."""
        (low, high), p, meant, implied = self._bounds(), self.p_values(), self.meant(), self.implied()
        words, concepts = self.hits.shape

        def verdict(w: int, c: int) -> Verdict:
            if meant[w, c]:
                return Verdict.means
            return Verdict.implies if implied[w, c] else Verdict.leave

        return [
            [
                Judged(
                    hits=int(self.hits[w, c]),
                    pictures=int(self.pictures[w, c]),
                    low=float(low[w, c]),
                    high=float(high[w, c]),
                    p=float(p[w, c]),
                    verdict=verdict(w, c),
                )
                for c in range(concepts)
            ]
            for w in range(words)
        ]

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        bounds = _of_counts(self.hits, self.pictures, lambda k, n: clopper_pearson(k, n, LEVEL / self.looks))
        return bounds[..., 0], bounds[..., 1]

    def _rate(self, rows: np.ndarray, concept: int) -> float:
        # One hit and one picture more than were counted: nought of a few pictures is not never.
        return float((self.hits[rows, concept].sum() + 1) / (self.pictures[rows, concept].sum() + 1))

    def _p(self, rates: np.ndarray) -> np.ndarray:
        columns = []
        for c, rate in enumerate(rates.tolist()):
            tail = partial(binomial_tail, share=rate)
            columns.append(_of_counts(self.hits[:, c], self.pictures[:, c], tail))
        p: np.ndarray = np.minimum(1.0, self.looks * np.stack(columns, 1))
        return p

    def _fewer(self, concept: int) -> np.ndarray:
        """Return the chance of so few hits of a word that barely means the concept ``(words,)``."""
        tail = partial(binomial_tail, share=float(self.rates[concept]) / 2)
        more = _of_counts(self.hits[:, concept], self.pictures[:, concept], lambda k, n: tail(k + 1, n))
        return 1 - more


def looks(pictures: int) -> list[int]:
    """Return how many pictures of an open word there are after each round, with *pictures* in the first."""
    return [pictures * 2**i for i in range(ROUNDS)]


def _of_counts(hits: np.ndarray, pictures: np.ndarray, value: Callable[[int, int], Any]) -> np.ndarray:
    """Return *value* of each pair of counts, in their shape; of most pairs there are many."""
    pairs, where = np.unique(np.stack([hits.ravel(), pictures.ravel()], 1), axis=0, return_inverse=True)
    values = np.array([value(k, n) for k, n in pairs.tolist()], dtype=np.float64)
    return values[where.ravel()].reshape(*hits.shape, *values.shape[1:])
