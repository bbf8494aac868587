"""Thresholds hold the rate that they were set for, and do not hang on the last bits or on a few words."""

import pytest
import torch

from pipeline.erasure.gate.calibration import MEANS, OPENS, Thresholds, quantile, thresholds


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("number", [400, 4000])
def test_a_quantile_is_reached_by_its_share_also_where_too_few_tell(share: float, number: int) -> None:
    """Of an exponential tail it is known: log(1 / share)."""
    scores = -torch.rand(50, number, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log()
    found = torch.tensor([quantile(row, share) for row in scores])
    assert found.mean() == pytest.approx(torch.tensor(1 / share).log().item(), rel=0.1)


def test_few_words_that_come_near_after_all_hardly_move_it() -> None:
    scores = torch.linspace(-0.2, 0.2, 500, dtype=torch.float64)
    with_others = torch.cat([scores, torch.tensor([0.98, 0.97, 0.9])])
    assert quantile(with_others, 0.001) < quantile(scores, 0.001) + 0.02


def test_scores_of_every_concept_are_in_one_measure() -> None:
    for found in (Thresholds(0.35, 0.85), Thresholds(0.6, 0.6), Thresholds(1.0, 1.0)):
        assert found.calibrated(found.opens) == (MEANS if found.opens == found.means else OPENS)
        assert found.calibrated(found.means) == MEANS
        assert found.calibrated(found.opens - 0.002) < OPENS
        assert found.calibrated(-0.3) == 0.0
    assert Thresholds(0.35, 0.85).calibrated(1.0) == 1.0
    assert Thresholds(0.35, 0.85).calibrated(0.35 - 1e-9) == OPENS, "not by the last bits"


def test_an_eighth_of_what_a_word_says_is_the_least_and_three_quarters_mean_it() -> None:
    found = thresholds(torch.zeros(100, dtype=torch.float64), 0.001, 0.8)
    assert found == Thresholds(round(0.8 / 8**0.5, 3), round(0.8 * 0.75**0.5, 3))
    assert thresholds(torch.full((100,), 0.95, dtype=torch.float64), 0.001, 0.8) == Thresholds(0.95, 0.95)
