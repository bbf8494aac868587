"""Verdicts on simulated sweeps: what is true is found, what is chance is left, however often one looks."""

import numpy as np
import pytest

from pipeline.evaluation.words.verdict import Table, Verdict

LOOKS = (4, 8, 16, 32)


def sweep(truth: np.ndarray, rates: np.ndarray, seed: int) -> tuple[Table, int]:
    """Draw words of the rates *truth* ``(words, concepts)``, on where the table is open; return the pictures too."""
    rng = np.random.default_rng(seed)
    hits, pictures = np.zeros(truth.shape, np.int64), np.zeros(truth.shape, np.int64)
    rows = np.ones(len(truth), bool)
    for look in LOOKS:
        more = look - pictures[rows]
        hits[rows] += rng.binomial(more, truth[rows])
        pictures[rows] = look
        table = Table(hits, pictures, rates, len(LOOKS))
        rows = table.open()
    return table, int(pictures[:, 0].sum())


def test_synonyms_and_scenes_are_found_and_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([0.0, 0.002, 0.01], size=(1500, 4))
    synonyms, scenes = range(20), range(20, 30)
    truth[synonyms, 0] = 0.97
    truth[scenes, 1] = 0.6
    rates = np.array([0.98, 0.95, 0.9, 0.97])
    missed = implied = false = 0
    for seed in range(10):
        table, drawn = sweep(truth, rates, seed)
        verdicts = np.array([[judged.verdict for judged in row] for row in table.judge()])
        missed += (verdicts[synonyms, 0] != Verdict.means).sum()
        implied += (verdicts[scenes, 1] == Verdict.leave).sum()
        verdicts[:30] = Verdict.leave
        false += (verdicts != Verdict.leave).sum()
        assert drawn < 1.2 * 4 * 1500, "what is decided is not drawn on"
    assert missed == 0
    assert implied <= 10 * 10 * 0.4**4 * 2, "a scene of which none of four pictures shows it is left: .4^4 of them"
    assert false <= 5, "of 60,000 pairs"


def test_a_word_means_a_concept_only_where_the_bound_says_so_whenever_one_stops() -> None:
    """Words at just under half the name's rate are said to mean it in at most 5 %, over all looks."""
    truth = np.full((2000, 1), 0.449)
    table, _ = sweep(truth, np.array([0.9]), seed=1)
    assert table.meant().mean() <= 0.05


def test_a_word_implies_at_the_false_discovery_rate_whenever_one_stops() -> None:
    """Where no word has to do with a concept, hardly a table has a word that implies it."""
    tables = [sweep(np.full((300, 2), 0.02), np.array([1.0, 1.0]), seed)[0] for seed in range(60)]
    assert np.mean([table.implied().any() for table in tables]) <= 0.05


def test_what_a_name_itself_hardly_shows_is_not_judged() -> None:
    hits, pictures = np.array([[8, 8], [0, 0]]), np.full((2, 2), 8)
    table = Table(hits, pictures, np.array([0.4, 1.0]), 1)
    assert table.provable.tolist() == [False, True]
    assert [judged.verdict for judged in table.judge()[0]] == [Verdict.leave, Verdict.means]


def test_the_rate_of_chance_is_that_of_words_that_do_not_stand_out() -> None:
    hits = np.array([[16]] * 5 + [[7]] * 5 + [[0]] * 189 + [[1]])
    table = Table(hits, np.full((200, 1), 16), np.array([1.0]), 1)
    assert table.chance() == pytest.approx(2 / (190 * 16 + 1))
    assert table.implied()[5:10].all()
    assert not table.implied()[10:].any()
    assert not table.open()[10:-1].any()


def test_a_word_that_was_not_drawn_is_left() -> None:
    table = Table(np.array([[4], [0]]), np.array([[4], [0]]), np.array([1.0]), 1)
    judged = table.judge()[1][0]
    assert (judged.verdict, judged.low, judged.high, judged.p) == (Verdict.leave, 0, 1, 1)
