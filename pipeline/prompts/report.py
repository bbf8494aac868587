"""The dry run: what a plan would generate, which of it names an erased concept, and what it would take.

Draws nothing itself: seconds and bytes per image come from whoever measured a batch, and without them the lines that
need them are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.schema import Config
from pipeline.erasure.concept import concepts_of
from pipeline.prompts.mentions import mentions
from pipeline.prompts.plan import Plan
from pipeline.prompts.sample import Sample

SURVEYED = 10_000  # prompts looked at for concepts
PLACES = 100  # of the source from which they are read: at most so many row groups are decoded
SHOWN = 5  # samples
Z = 1.959964  # of a 95 % interval
ROW_BYTES = 1000  # of tar headers, caption and JSON: members are padded to 512 bytes each, with a header of 512


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measured batch, on one worker."""

    seconds_per_image: float
    bytes_per_image: float


@dataclass(frozen=True)
class Share:
    """``hits`` of ``trials``, with the Wilson interval of 95 % for the whole they were taken from."""

    hits: int
    trials: int
    exact: bool  # everything was looked at

    @property
    def interval(self) -> tuple[float, float]:
        if self.exact:
            return self.hits / self.trials, self.hits / self.trials
        return wilson(self.hits, self.trials)

    def text(self) -> str:
        low, high = self.interval
        point = f"{100 * self.hits / self.trials:.2f} %"
        return point if self.exact else f"{point} (95 % interval {100 * low:.2f} to {100 * high:.2f} %)"
