"""Heads learn what can be told, a scorer is chosen on other encoders, a number is as it was when it was varied."""

import numpy as np
import pytest
import torch

from jobs import compare_scorers, vary_gate
from jobs.words.grammar import ASKED, TRAINED, sentences
from jobs.words.heads import heads
from pipeline.erasure.gate import calibration


def test_a_sentence_has_the_word_where_it_says_so_and_the_same_other_words_for_all() -> None:
    texts, spans = sentences(["cat", "hot dog"], [*TRAINED, *ASKED])
    assert len(texts) == 2 * len({*TRAINED, *ASKED})
    words = ["cat"] * (len(texts) // 2) + ["hot dog"] * (len(texts) // 2)
    assert [text[start:stop] for text, (start, stop) in zip(texts, spans, strict=True)] == words
    for one, two in zip(texts[: len(texts) // 2], texts[len(texts) // 2 :], strict=True):
        assert one.replace("cat", "hot dog") == two
    assert not any("[" in text or "{" in text for text in texts)


def test_a_head_tells_what_it_was_shown_and_is_not_led_by_what_does_not_count() -> None:
    random = torch.Generator().manual_seed(0)
    states = torch.randn(300, 8, generator=random, dtype=torch.float64)
    asks = torch.stack([states[:, 0] > 1, states[:, 1] > 1], 1)
    weights = torch.ones(300, 2, dtype=torch.float64)
    w, b = heads(states, asks, weights, 1e-4)
    told = (states @ w + b) > 0
    assert (told == asks).double().mean() > 0.95
    wrong = asks.clone()
    wrong[:100] = ~asks[:100]
    weights[:100] = 0
    of_rest, _ = heads(states[100:], asks[100:], weights[100:], 1e-4)
    torch.testing.assert_close(heads(states, wrong, weights, 1e-4)[0], of_rest, rtol=0.02, atol=0.02)


def test_a_scorer_is_chosen_by_what_it_gains_on_the_other_encoders() -> None:
    def row(recall: float, siblings: float = 0.1) -> dict[str, float]:
        return {"1 in 300": recall, "1 in 300, siblings": siblings}

    figures = {
        "one": {"projected, rivals": row(0.5), "projected, cosine": row(0.9, 0.7)},
        "two": {"end, rivals": row(0.4), "end, head": row(0.6)},
        "three": {"projected, rivals": row(0.3), "projected, cosine": row(0.2), "end, head": row(1.0)},
    }
    picked = {"one": "projected, rivals", "two": "end, head", "three": "end, head"}
    assert compare_scorers.chosen(figures) == picked


def test_a_number_is_changed_for_as_long_as_it_is_asked() -> None:
    before = calibration.LEAST
    with vary_gate.changed(calibration, "LEAST", 2, True) as value:
        assert (value, calibration.LEAST) == (pytest.approx(2 * before**2), pytest.approx(np.sqrt(2) * before))
    with vary_gate.changed(calibration, "SAME", 2, True) as value:
        assert value == 1, "no cosine is more"
    assert before == calibration.LEAST
