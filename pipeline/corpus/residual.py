"""What is left of a concept in a corpus, as far as its audit can know: what was found and removed, and what that
implies at the rates at which the detector was found to err when it was calibrated.

A detector does not see its own misses. That it finds nothing in the pictures that are left when all in which it found
something are removed is true of every detector, and says nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.corpus.run_record import RunRecord
from pipeline.corpus.summary import Summary
from pipeline.statistics import Share, missed, prevalence, wilson

Counts = tuple[int, int]  # hits, trials


@dataclass(frozen=True, kw_only=True)
class Residual:
    """What is known of one concept.

    ``found`` is the share of the ``drawn`` pictures, all attempts, in which the audit saw it, and ``removed`` how many
    of these were not kept. ``in_drawn`` and ``in_kept`` are the shares of pictures that show it, whether it was seen or
    not, which takes every picture drawn for a concept alike; None, and ``unknown`` says why, without a calibration.
    """

    concept: str
    found: Share
    drawn: int
    removed: int
    in_drawn: Share | None = None
    in_kept: Share | None = None
    unknown: str = ""


def residual(run: RunRecord, summary: Summary, concept: str) -> Residual:
    """Return what the audit of *run* knows of a *concept* that it judged."""
    hits, drawn = summary.drawn_with[concept], summary.drawn[concept]
    low, high = wilson(hits, drawn)
    found = Share(share=hits / drawn if drawn else 0.0, low=low, high=high)
    kept_with = summary.found["ok"][concept] if "ok" in summary.found else 0
    known = Residual(concept=concept, found=found, drawn=drawn, removed=hits - kept_with)
    rates, unknown = _rates(run, concept)
    if rates is None:
        return replace(known, unknown=unknown)
    keeps_all = run.config["audit"]["policy"] == "keep"
    kept_of: Callable[[Counts, Counts, Counts], Share | None] = prevalence if keeps_all else missed
    in_drawn = prevalence((hits, drawn), *rates)
    in_kept = kept_of((hits, drawn), *rates)
    unknown = "" if in_drawn else "the detector tells nothing of it, by its calibration"
    return replace(known, in_drawn=in_drawn, in_kept=in_kept, unknown=unknown)


def _rates(run: RunRecord, concept: str) -> tuple[tuple[Counts, Counts] | None, str]:
    """Return sensitivity and specificity of who decides about *concept*, or why they are not known."""
    judges = [d for d in run.detectors if d["role"] == "judge" and concept in d["thresholds"]]
    if len(judges) > 1:
        return None, "several judges decide, and each is calibrated alone"
    if not judges:
        return None, "its detector is not on record"
    calibrated: Mapping[str, Any] | None = judges[0].get("calibration", {}).get(concept)
    if calibrated is None:
        return None, "uncalibrated"
    sensitivity, specificity = (tuple(calibrated[key]) for key in ("sensitivity", "specificity"))
    return ((sensitivity[0], sensitivity[1]), (specificity[0], specificity[1])), ""
