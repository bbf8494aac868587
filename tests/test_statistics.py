"""Wilson's interval agrees with published values and with its own limits."""

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest

from pipeline.statistics import binomial_tail, clopper_pearson, missed, prevalence, ratio, rounded_down, wilson


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    [  # Newcombe 1998 (Statist. Med. 17:857), table I
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_is_the_published_interval(hits, trials, expected):
    assert wilson(hits, trials) == pytest.approx(expected, abs=5e-5)


def test_wilson_is_exact_at_its_ends_and_refuses_what_cannot_be():
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20)[1] == 1
    assert wilson(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="5 hits in 4"):
        wilson(5, 4)


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    [  # Newcombe 1998 (Statist. Med. 17:857), table I, method 5: 2.5 % on either side
        (81, 263, (0.2527, 0.3676)),
        (15, 148, (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1684)),
        (1, 29, (0.0009, 0.1776)),
    ],
)
def test_clopper_pearson_is_the_published_interval(hits, trials, expected):
    assert clopper_pearson(hits, trials, 0.025) == pytest.approx(expected, abs=5e-5)


def test_exact_bounds_and_tails_at_their_ends():
    assert clopper_pearson(4, 4, 0.05) == (pytest.approx(0.05**0.25), 1.0)
    assert clopper_pearson(0, 0, 0.05) == (0.0, 1.0)
    assert binomial_tail(0, 5, 0.1) == 1
    assert binomial_tail(6, 5, 0.1) == 0
    assert binomial_tail(1, 5, 0.1) == pytest.approx(1 - 0.9**5)
    assert binomial_tail(3, 3, 1.0) == 1


@pytest.mark.slow
def test_tails_of_many_trials_are_the_exact_sums():
    share = Fraction(3, 100)
    for hits, trials in ((1, 40), (3, 40), (40, 40), (90, 2500), (60, 2500), (75, 2500)):
        terms = (math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(hits, trials + 1))
        assert binomial_tail(hits, trials, 0.03) == pytest.approx(float(sum(terms)), rel=1e-9)


def test_exact_bounds_of_many_trials():
    """None in n: 1 - level ** (1 / n); few in a million: the quantile of Poisson's gamma distribution."""
    assert clopper_pearson(0, 100_000, 0.05)[1] == pytest.approx(1 - 0.05**1e-5)
    assert clopper_pearson(3, 1_000_000, 0.05)[1] == pytest.approx(7.7537e-6, rel=1e-4)
    assert clopper_pearson(900_000, 1_000_000, 0.025) == pytest.approx((0.899410, 0.900588), abs=2e-6)


def test_prevalence_is_rogan_and_gladens():
    """Their formula, and an interval that holds the truth of binomial draws at least as often as it says."""
    found = prevalence((140, 10_000), (700, 1_000), (9_990, 10_000))
    assert found.share == pytest.approx((0.014 + 0.999 - 1) / (0.7 + 0.999 - 1))
    assert found.low < 0.0186 < found.high
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        share = random.uniform(0, 0.2)
        p = 0.8 * share + 0.05 * (1 - share)
        drawn = ((p, 2_000), (0.8, 150), (0.95, 300))
        counts = tuple((int(random.binomial(trials, chance)), trials) for chance, trials in drawn)
        for formula, truth in ((prevalence, share), (missed, 0.2 * share / (1 - p))):
            implied = formula(*counts)
            held += implied.low <= truth <= implied.high
    assert held >= 0.95 * 800


def test_a_detector_that_sees_nothing_implies_nothing():
    assert prevalence((5, 10), (5, 10), (5, 10)) is None
    assert missed((5, 10), (0, 0), (5, 10)) is None
    vague = missed((1, 10), (2, 3), (2, 3))
    assert (vague.low, vague.high) == (0.0, 1.0)


def test_the_interval_of_a_ratio_holds_it_and_is_as_wide_as_student_has_it() -> None:
    found = ratio([1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.1, 1.2, 1.1, 1.0])
    assert found["ratio"] == pytest.approx((1.1 * 1.2 * 1.1) ** (1 / 5))
    logs = [math.log(x) for x in (1.0, 1.1, 1.2, 1.1, 1.0)]
    half = 2.776 * statistics.stdev(logs) / math.sqrt(5)  # t of 4 degrees of freedom
    assert found["low"] == pytest.approx(found["ratio"] * math.exp(-half))
    assert found["high"] == pytest.approx(found["ratio"] * math.exp(half))


def test_no_score_is_rounded_up_to_a_threshold_that_it_does_not_reach():
    told = {0.499: "0.49", 0.4999999999: "0.49", 0.5: "0.50", 0.58: "0.58", 0.29: "0.29", 1.0: "1.00", 1e-7: "0.00"}
    assert {score: rounded_down(score) for score in told} == told
    assert (rounded_down(0.9849, 3), rounded_down(-0.001), rounded_down(0.999, 0)) == ("0.984", "-0.01", "0")
    for hundredth in range(101):
        assert rounded_down(hundredth / 100) == f"{hundredth / 100:.2f}", "what has no more digits stays"
        assert rounded_down(math.nextafter(hundredth / 100, -1)) < f"{hundredth / 100:.2f}" or not hundredth
