"""From a score to a decision: the score from which on a stated share of what has nothing to do with a concept comes
near it all the same, for each concept and text encoder.

Scores are made comparable by it: of whatever concept and encoder, ``OPENS`` is where the gate opens, ``MEANS`` where a
word means the concept and does not only imply it, and 1 what a listed word scores.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from pipeline.errors import ConfigError

OPENS, MEANS = 0.5, 0.75  # of calibrated scores
FALSE_ALARMS = 0.001  # one everyday word in so many reaches a concept's threshold, unless a config says otherwise
TAIL = 10  # so many highest scores say where a quantile lies; what lies beyond is extrapolated
# A cosine of 1/sqrt(8): of what makes a word stand out an eighth or more must be the concept, whatever the rate. It
# holds where an encoder knows few everyday words and tells them apart so well that hardly any comes near anything.
# Half and twice of this share, the next and the ridge decide hardly otherwise (jobs/vary_gate.py).
LEAST = math.sqrt(1 / 8)
SAME = math.sqrt(3 / 4)  # and three quarters where it means it, as a cosine
DIGITS = 3


@dataclass(frozen=True)
class Thresholds:
    """Cosines of one concept: from ``opens`` on the gate is open, from ``means`` on a word means it."""

    opens: float
    means: float

    def calibrated(self, score: float) -> float:
        """Return what *score*, a cosine, is worth, 0..1."""
        score = rounded(score)
        if score < self.opens:
            return OPENS * score / self.opens
        if score < self.means:
            return OPENS + (MEANS - OPENS) * (score - self.opens) / (self.means - self.opens)
        return MEANS + (1 - MEANS) * (score - self.means) / max(1 - self.means, 1e-9)


def thresholds(scores: Tensor, false_alarms: float, same: float) -> Thresholds:
    """Return the thresholds that one in 1 / *false_alarms* of the negatives' *scores* ``(N,)`` reaches.

    *same* is the cosine of what this encoder takes for the same thing.
    """
    opens = rounded(max(quantile(scores, false_alarms), LEAST * same))
    return Thresholds(opens, max(opens, rounded(SAME * same)))


def check_false_alarms(share: float | None) -> None:
    """Raise ``ConfigError`` for what is no share."""
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"false_alarms is {share}; expected a share between 0 and 1")


def rounded(score: float) -> float:
    """Return *score* in 0..1, to so many digits that no decision hangs on the last bits of a sum."""
    return round(min(1.0, max(0.0, score)), DIGITS)


def quantile(scores: Tensor, share: float) -> float:
    """Return the score that a *share* of *scores* ``(N,)`` exceeds.

    Where they are too few to tell, the tail is taken to fall exponentially from where the highest ``TAIL`` begin, as
    fast as between there and a ten times greater share.
    """
    known = min(1.0, max(share, TAIL / len(scores)))
    at = scores.quantile(1 - known).item()
    if known > share:
        wide = min(1.0, 10 * known)
        fall = (at - scores.quantile(1 - wide).item()) / math.log(wide / known) if wide > known else 0.0
        at += fall * math.log(known / share)
    return at
