"""What is left of a concept is told by what the detector misses, not by what it finds behind its own filter."""

from collections import Counter
from dataclasses import replace

import pytest

from pipeline.corpus.residual import residual
from pipeline.corpus.summary import Summary
from tests.corpus.conftest import DIORAMA, run_record

RATES = {"cat": {"sensitivity": [700, 1000], "specificity": [10_000, 10_000]}}


def summary(hits: int, drawn: int, kept_with: int = 0) -> Summary:
    found = {"ok": Counter(cat=kept_with)} if kept_with else {}
    return Summary(drawn=Counter(cat=drawn), drawn_with=Counter(cat=hits), found=found)


def begun(policy: str = "quarantine", *detectors: dict):
    record = run_record(1)
    config = {**record.config, "audit": {**record.config["audit"], "policy": policy}}
    return replace(record, config=config, detectors=list(detectors))


def test_uncalibrated_it_is_unknown():
    known = residual(begun("quarantine", DIORAMA), summary(14_000, 1_000_000), "cat")
    assert (known.found.share, known.removed) == (0.014, 14_000)
    assert (known.in_drawn, known.in_kept, known.unknown) == (None, None, "uncalibrated")


def test_calibrated_it_is_what_the_misses_leave_and_more_pictures_do_not_hide_them():
    """A sensitivity of .7 and 2 % prevalence: 1.4 % is found, and .61 % of what is kept shows it still."""
    for scale in (1, 100):
        known = residual(
            begun("quarantine", {**DIORAMA, "calibration": RATES}), summary(1_400 * scale, 100_000 * scale), "cat"
        )
        assert known.in_drawn.share == pytest.approx(0.02)
        assert known.in_kept.share == pytest.approx(0.006 / 0.986)
        assert 0.003 < known.in_kept.low < 0.0061 < known.in_kept.high < 0.009


def test_where_everything_is_kept_all_that_shows_it_is_left():
    known = residual(begun("keep", {**DIORAMA, "calibration": RATES}), summary(1_400, 100_000, 1_400), "cat")
    assert known.removed == 0
    assert known.in_kept == known.in_drawn


def test_of_several_judges_together_nothing_is_known():
    twice = {**DIORAMA, "calibration": RATES}
    known = residual(begun("quarantine", twice, {**twice, "name": "diorama 2"}), summary(1, 10), "cat")
    assert (known.in_kept, known.unknown) == (None, "several judges decide, and each is calibrated alone")
    witness = {**DIORAMA, "name": "diorama 2", "role": "witness"}
    assert residual(begun("quarantine", twice, witness), summary(1, 10), "cat").in_kept is not None
