"""The words that come nearest to a concept are found whatever an encoder's scale, and kinds are among them."""

import numpy as np
import pytest
import torch

from pipeline.config.schema import DType, ModelConfig
from pipeline.evaluation.words.candidates import encoded, nearest, nearness
from pipeline.models.load import load_model


def world(seed: int = 0) -> tuple[torch.Tensor, list[list[int]]]:
    """Vectors of 40 groups of ten words: a few directions in which all differ, and one of each group's own."""
    rng = np.random.default_rng(seed)
    groups, common = rng.normal(size=(40, 32)), rng.normal(size=(3, 32))
    rows = [g + 0.2 * rng.normal(size=32) + 4 * rng.normal(size=3) @ common for g in groups for _ in range(10)]
    return torch.tensor(np.array(rows) + 5, dtype=torch.float32), [list(range(10 * g, 10 * g + 10)) for g in range(40)]


def test_kinds_are_among_the_nearest() -> None:
    vectors, groups = world()
    scores = nearness(vectors, [vectors[group[:1]] for group in groups], vectors)
    plain = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    raw = torch.stack([(plain @ plain[group[0]]) for group in groups], 1)
    assert recall(scores, groups) > 0.85 > 0.4 > recall(raw, groups), "most of them, which cosines alone do not find"


def recall(scores: torch.Tensor, groups: list[list[int]]) -> float:
    """The share of each group's words that are among the nearest 12 of 400 to its first, on the mean."""
    near = [nearest(scores[:, g : g + 1]) for g in range(len(groups))]
    assert {len(words) for words in near} == {12}, "3 % of 400"
    return float(np.mean([len(set(words) & set(group)) / 10 for words, group in zip(near, groups, strict=True)]))


def test_nothing_changes_where_dimensions_are_scaled_and_shifted() -> None:
    vectors, groups = world()
    generator = torch.Generator().manual_seed(1)
    scale = torch.exp(torch.empty(32).uniform_(np.log(0.1), np.log(10), generator=generator))
    other = vectors * scale + 3 * vectors.norm(dim=1).mean() * torch.randn(32, generator=generator)
    concepts = [group[:2] for group in groups]
    scores = nearness(vectors, [vectors[c] for c in concepts], vectors)
    changed = nearness(other, [other[c] for c in concepts], other)
    assert changed.numpy() == pytest.approx(scores.numpy(), abs=1e-3)
    assert set(nearest(changed[:, 5:6])) == set(nearest(scores[:, 5:6]))


def test_the_nearest_of_all_come_first_and_each_once() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.1], [0.2, 0.7]])
    assert nearest(scores, share=0.25) == [0, 1]
    assert nearest(scores, share=0.5) == [0, 1, 3, 2]


def test_the_diorama_puts_a_synonym_among_the_nearest() -> None:
    family = load_model(ModelConfig(path="diorama", dtype=DType.float32), torch.device("cpu")).family
    words = ["dog", "house", "tree", "car", "bus", "apple", "pizza", "rose", "moon", "guitar"] * 3 + ["kitten"]
    words = list(dict.fromkeys(words))
    basis = encoded(family, words)
    cat = encoded(family, ["cat"])
    assert words[nearest(nearness(basis, [cat], basis))[0]] == "kitten"


def test_of_one_word_or_of_words_that_are_alike_nearness_is_a_number() -> None:
    one = torch.ones(1, 8)
    for basis in (one, one.expand(3, 8), torch.eye(2, 8)):
        assert torch.isfinite(nearness(basis, [one], basis)).all()
