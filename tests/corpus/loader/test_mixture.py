"""A mixture: its weights, each corpus's epochs one behind the other, and exact resumes."""

import json
from collections import Counter

import numpy as np
import pytest

from pipeline import Corpus, Loader, Mixture
from pipeline.corpus.loader.mixture import _Mixing
from pipeline.corpus.loader.order import Shuffled
from pipeline.errors import ConfigError, CorpusError
from tests.corpora import make_corpus


@pytest.fixture
def parts(tmp_path):
    """Numbers 0 to 59 in one corpus, 1000 to 1129 in the other."""
    make_corpus(str(tmp_path / "a"), [40, 20])
    make_corpus(str(tmp_path / "b"), [100, 30], first=1000)
    return [Corpus(tmp_path / name, columns=["number"]) for name in "ab"]


def numbers_of(batches):
    return [number for batch in batches for number in batch["number"].tolist()]


@pytest.mark.parametrize("weights", [(0.7, 0.3), (3, 1), (1, 999), (1, 1)])
def test_each_corpus_has_its_weight_and_its_own_epochs(parts, weights):
    a, b = parts
    mixture = Mixture([(a, weights[0]), (b, weights[1])], length=4000)
    given = numbers_of(Loader(mixture, 40))
    share = weights[0] / sum(weights)
    for start in (0, 40, 1000, 3990):  # at any place, not on the whole alone
        among = [n < 1000 for n in given[start : start + 400]]
        assert abs(sum(among) - share * len(among)) <= 1
    for corpus, its in ((a, [n for n in given if n < 1000]), (b, [n for n in given if n >= 1000])):
        rounds = [its[i : i + len(corpus)] for i in range(0, len(its), len(corpus))]
        assert all(len(set(one)) == len(one) for one in rounds)
        whole = [tuple(one) for one in rounds if len(one) == len(corpus)]
        assert len(set(whole)) == len(whole)


def test_an_epoch_goes_on_where_the_last_one_ended(parts):
    long = numbers_of(Loader(Mixture([(parts[0], 0.7), (parts[1], 0.3)], length=600), 4))
    loader = Loader(Mixture([(parts[0], 0.7), (parts[1], 0.3)], length=200), 4)
    short = [n for _ in range(3) for n in numbers_of(loader)]
    for of_a in (True, False):
        assert [n for n in short if (n < 1000) == of_a] == [n for n in long if (n < 1000) == of_a][
            : sum((n < 1000) == of_a for n in short)
        ]


def test_a_resume_is_exact_at_other_ranks(parts):
    mixture, state, seen = Mixture([(parts[0], 0.6), (parts[1], 0.4)]), None, []
    for world, batch, steps in ((2, 3, 7), (3, 2, 9), (1, 5, 6), (4, 1, 5)):
        loaders = [Loader(mixture, batch, rank=rank, world_size=world) for rank in range(world)]
        for loader in loaders:
            if state:
                loader.load_state_dict(state)
        passes = [iter(loader) for loader in loaders]
        for _ in range(steps):
            seen += [n for one in passes for n in next(one)["number"].tolist()]
        state = json.loads(json.dumps(loaders[-1].state_dict()))
    alone = numbers_of(Loader(mixture, 1))
    assert state["position"] == len(seen)
    assert Counter(seen) == Counter(alone[: len(seen)])
    with pytest.raises(CorpusError, match="of another corpus"):
        Loader(Mixture([(parts[0], 0.5), (parts[1], 0.5)]), 4).load_state_dict(state)


def test_by_number_it_is_its_corpora_one_behind_the_other(parts):
    mixture = Mixture([(parts[0], 1), (parts[1], 1)])
    assert len(mixture) == 190
    assert [mixture[i]["number"] for i in (0, 59, 60, -1)] == [0, 59, 1000, 1129]
    assert [s["number"] for s in mixture.__getitems__([60, 3, 61, -130])] == [1000, 3, 1001, 1000]
    for wrong in (190, -191):
        with pytest.raises(IndexError, match=f"{wrong} of 190 samples"):
            mixture[wrong]


def test_blocks_that_are_announced_are_the_parts_own(tmp_path):
    """Those of a chapter that comes, told to the corpus that has them."""
    make_corpus(str(tmp_path / "a"), [40, 20])
    mixture = Mixture([(Corpus(tmp_path / "a"), 0.5), (Corpus(tmp_path / "a", where="number < 50"), 0.5)])
    told = []
    for number, part in enumerate(mixture.parts):
        part.prefetch = lambda blocks, number=number: told.append((number, blocks.tolist()))
    mixture.prefetch(np.array([0, 3, 1, 2]))
    assert told == [(0, [0, 1]), (1, [1, 0])]


@pytest.mark.parametrize("start", [0, 777])
def test_blocks_are_announced_anew_for_each_epoch_of_a_part_before_it_is_read(start):
    """Also where that begins in the middle of an epoch of the mixture, or of a step."""
    lengths, step = (3000, 500), 32
    orders = [Shuffled(np.arange(0, length, 10), length, 4e6, seed=length) for length in lengths]
    mixing = _Mixing(orders, np.array([600, 400]), 9000, np.array([0, 3000]), np.array([0, 300]))
    announced = Counter(mixing.opening(0, start, step, 0, 1).tolist())
    read = {}  # of each block, the epochs of its part in which it was read
    given = [int(count) for count in mixing._given(0, start)]
    for at in range(start, 9000 - step, step):
        share = mixing.share(0, at, at + step, 0, 1)
        announced.update(share.ahead.tolist())
        for row in share.rows.tolist():
            part = int(row >= 3000)
            read.setdefault(row // 10, set()).add(given[part] // lengths[part])
            given[part] += 1
        assert all(announced[block] >= len(epochs) for block, epochs in read.items())
    assert max(map(len, read.values())) >= 6
    assert announced.total() < sum(map(len, read.values())) + 300  # and hardly more often


def test_what_cannot_be_mixed_is_refused_in_a_line(parts, tmp_path):
    a, b = parts
    for weights in ((0, 1), (-1, 2), (1, 10_000)):
        with pytest.raises(ConfigError, match="expected a thousandth at least"):
            Mixture([(a, weights[0]), (b, weights[1])])
    with pytest.raises(ConfigError, match="expected the same in a mixture"):
        Mixture([(a, 1), (Corpus(tmp_path / "b"), 1)])
    with pytest.raises(ConfigError, match="expected the same in a mixture"):
        Mixture([(a, 1), (Corpus(tmp_path / "b", columns=["number"], decode="pil"), 1)])
    for parts in ([], None, {a: 1}):
        with pytest.raises(ConfigError, match="of one corpus at least"):
            Mixture(parts)
    for weight in (float("nan"), float("inf"), True, None):
        with pytest.raises(ConfigError, match=f"a weight is {weight}; expected a number"):
            Mixture([(a, weight), (b, 1)])
    for part in (a, (a,), (a, 1, 2), "ab"):
        with pytest.raises(ConfigError, match=r"a mixture is of .*; expected \(Corpus, weight\)"):
            Mixture([part])
    with pytest.raises(ConfigError, match="length is 0"):
        Mixture([(a, 1)], length=0)
    with pytest.raises(ConfigError, match="a weight is '1'; expected a number"):
        Mixture([(a, "1")])
    with pytest.raises(ConfigError, match=r"a mixture is of .*; expected \(Corpus, weight\)"):
        Mixture([(a.url, 1)])
