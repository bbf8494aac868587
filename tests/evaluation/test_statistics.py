"""The statistics agree with values worked out elsewhere and with their own limits."""

import math

import numpy as np
import pytest

from pipeline.evaluation.statistics import (
    count,
    dirichlet_shares,
    effective_size,
    frechet,
    harmonic_mean,
    kappa,
    macro_f1,
    paired_ratio,
    percentile_interval,
    pooled_proportion,
    pooled_ratio,
    proportion,
    psnr,
)


def test_count_and_its_text():
    assert str(count(np.array([True, False, True, True]))).startswith("75.0 % (")
    assert str(count(np.zeros(0, bool))) == "not measured"


def test_macro_f1_weighs_classes_equally():
    true = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    seen = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]], bool)
    assert macro_f1(true, true) == 1
    assert macro_f1(seen, true) == 0.5


def test_kappa_is_zero_by_chance_and_one_in_agreement():
    rng = np.random.default_rng(0)
    a, b = rng.random(20_000) < 0.3, rng.random(20_000) < 0.3
    assert abs(kappa(a, b)) < 0.03
    assert kappa(a, a) == 1
    assert kappa(np.zeros(4, bool), np.zeros(4, bool)) == 1


def test_frechet_of_shifted_and_scaled_normals():
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(50_000, 3))
    assert frechet(cloud, cloud) == pytest.approx(0, abs=1e-9)
    assert frechet(cloud, cloud + 2) == pytest.approx(12)
    assert frechet(cloud, 3 * cloud) == pytest.approx(3 * 4, rel=0.02)  # (3 - 1)^2 per axis


def test_the_paired_ratio_holds_its_promise():
    """Coverage of nominally 95 % intervals, where a seed that fails before mostly fails after."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        before = rng.random(60) < 0.9
        after = np.where(before, rng.random(60) < 0.85, rng.random(60) < 0.2)
        true = (0.9 * 0.85 + 0.1 * 0.2) / 0.9
        found = paired_ratio(after, before)
        covered += found.low <= true <= found.high
    assert 0.935 < covered / 2000 < 0.985


def test_the_paired_ratio_has_a_width_where_all_were_kept_and_none_where_nothing_was_there():
    yes = np.ones(100, bool)
    all_kept = paired_ratio(yes, yes)
    assert all_kept.rate == 1
    assert 0.96 < all_kept.low < 1 < all_kept.high < 1.04
    assert str(paired_ratio(yes, ~yes)) == "not measured"
    assert paired_ratio(~yes, yes).high < 0.05


def test_pooled_is_as_if_the_pictures_had_been_counted_together():
    rng = np.random.default_rng(0)
    before, after = rng.random(90) < 0.9, rng.random(90) < 0.8
    parts = [slice(0, 20), slice(20, 90)]
    assert pooled_ratio([paired_ratio(after[p], before[p]) for p in parts]) == paired_ratio(after, before)
    assert pooled_proportion([count(after[p]) for p in parts]) == count(after)


def test_harmonic_mean_feels_any_failure_and_leaves_out_what_was_not_measured():
    terms = np.array([[0.5, 0.0, 0.5], [1.0, 1.0, np.nan]])
    assert harmonic_mean(terms) == pytest.approx([2 / 3, 0.0, 0.5])


def test_shares_have_their_standard_error_and_a_width_where_nothing_was_seen():
    rng = np.random.default_rng(0)
    outcomes = np.stack([np.arange(400) < 100, np.zeros(400, bool)])
    quarter, none = dirichlet_shares(rng, outcomes, 4000)
    half = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert percentile_interval(quarter) == pytest.approx((0.25 - half, 0.25 + half), abs=0.004)
    assert percentile_interval(none)[1] == pytest.approx(0.0063, abs=0.001)  # Jeffreys' bound of 0 of 400


def test_shares_of_the_same_items_stay_paired():
    """Two columns that differ in one item of 200: their difference is known far better than either."""
    rng = np.random.default_rng(0)
    first = np.arange(200) < 100
    second = first ^ (np.arange(200) == 0)
    a, b = dirichlet_shares(rng, np.stack([first, second]), 4000)
    low, high = percentile_interval(a - b)
    assert high - low < 0.03
    assert np.ptp(percentile_interval(a)) > 0.13


def test_intervals_of_shares_hold_the_truth_where_it_is_rare():
    """A bootstrap holds .002 in 18 % of samples of 100, because most have none."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = percentile_interval(dirichlet_shares(rng, rng.random((1, 100)) < 0.002, 1000)[0])
        held += low <= 0.002 <= high
    assert held >= 0.93 * 300


def test_psnr():
    a = np.full((4, 4, 3), 100, np.uint8)
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    assert psnr(a, a + 1, mask) == pytest.approx(48.1308, abs=1e-4)  # 20 log10 255
    assert psnr(a, np.where(mask[..., None], a, 0).astype(np.uint8), mask) == math.inf
    assert math.isnan(psnr(a, a, ~mask & mask))


WORDS = np.arange(100) % 15  # 100 pictures of 15 words


def leaks(rng: np.random.Generator, share: float, alike: float) -> np.ndarray:
    """Pictures of ``WORDS``, whose rates of leaking are beta-distributed with the mean *share*; *alike* is the
    intraclass correlation of the pictures of a word."""
    if alike == 1:
        rates = (rng.random(15) < share).astype(float)
    else:
        weight = (1 - alike) / alike
        rates = rng.beta(share * weight, (1 - share) * weight, 15)
    return rng.random(100) < rates[WORDS]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("alike", [0.1, 0.3, 0.6, 1])
def test_the_interval_of_words_holds_its_promise_where_that_of_pictures_does_not(share: float, alike: float):
    rng = np.random.default_rng(0)
    drawn = [leaks(rng, share, alike) for _ in range(1000)]
    of_words = [count(leaked, WORDS.tolist()) for leaked in drawn]
    assert np.mean([found.low <= share <= found.high for found in of_words]) > 0.91
    of_pictures = [count(leaked) for leaked in drawn]
    if alike == 1:
        assert np.mean([found.low <= share <= found.high for found in of_pictures]) < 0.75


def test_what_is_said_of_fifteen_words_is_said_of_fifteen():
    none = np.zeros(100, bool)
    assert count(none, WORDS.tolist()).high == pytest.approx(proportion(0, 15).high, abs=0.005)
    assert count(none).high < 0.04
    whole = np.isin(WORDS, [3, 7])
    assert count(whole, WORDS.tolist()).high > proportion(2, 15).high
    assert count(whole, list(range(100))) == count(whole), "each picture stands for itself"
    assert count(none, [0] * 100).high == pytest.approx(proportion(0, 1).high)


def test_pictures_that_are_no_more_alike_within_a_word_lose_little():
    rng = np.random.default_rng(1)
    sizes = [effective_size(rng.random(100) < 0.3, WORDS.tolist()) for _ in range(300)]
    assert 60 < np.median(sizes) <= 100


def test_the_paired_ratio_of_objects_holds_its_promise():
    """Each of 15 objects is kept with a chance of its own; what was hardly drawn before costs nothing."""
    rng, covered = np.random.default_rng(2), 0
    for _ in range(1000):
        drawn, kept = rng.beta(18, 2, 15), rng.beta(8, 2, 15)
        before = rng.random(100) < drawn[WORDS]
        after = before & (rng.random(100) < kept[WORDS])
        found = paired_ratio(after, before, WORDS.tolist())
        covered += found.low <= 0.8 <= found.high
    assert covered / 1000 > 0.92


def test_pooled_intervals_are_those_of_the_parts_words():
    rng = np.random.default_rng(3)
    part = count(leaks(rng, 0.3, 1), WORDS.tolist())
    both = pooled_proportion([part, part])
    assert (both.trials, both.effective) == (200, pytest.approx(2 * part.effective))


def test_dirichlet_shares_of_alike_pictures_are_as_wide_as_those_of_fewer():
    rng = np.random.default_rng(4)
    outcomes = rng.random((1, 100)) < 0.2
    all_of_them, fewer = dirichlet_shares(rng, outcomes, 4000), dirichlet_shares(rng, outcomes, 4000, 25)
    assert fewer.std() == pytest.approx(2 * all_of_them.std(), rel=0.1)
