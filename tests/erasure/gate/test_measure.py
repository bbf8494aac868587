"""What is near a concept in vectors that are made up, so that it is known how near each word is."""

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.concepts.everyday import everyday
from pipeline.erasure.gate.calibration import MEANS, OPENS
from pipeline.erasure.gate.encoder import Encoder
from pipeline.erasure.gate.measure import Measure
from pipeline.erasure.gate.standard import Standard

WORDS = 400
WIDTH = 64


class Made(Encoder):
    """An encoder that makes a vector of its own of each everyday word, and the first unit vector of "church"."""

    def __init__(self) -> None:
        self.words = tuple(word for word in everyday() if word != "church")[:WORDS]
        self.whole = torch.ones(WORDS, dtype=torch.bool)
        self.standard = Standard(torch.eye(WIDTH))
        random = torch.randn(WORDS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.vectors = torch.nn.functional.normalize(random, dim=1)
        self.same = 1.0

    def of(self, words: tuple[str, ...]) -> Tensor:  # type: ignore[override]
        return torch.stack([at(1.0) for _ in words])


def at(cosine: float) -> Tensor:
    """Return a vector that is so near to that of "church"."""
    vector = torch.zeros(WIDTH, dtype=torch.float64)
    vector[0], vector[1] = cosine, (1 - cosine**2) ** 0.5
    return vector


def test_a_kind_and_a_misspelt_word_mean_a_concept_that_they_are_candidates_of() -> None:
    measure = Measure(Made(), Concept(name="church"), [], 0.001)
    near = measure.candidate + 0.01
    assert near < measure.thresholds[True].opens, "no score by which the gate opens"
    for word in ("abbey", "chruch", "churchcat"):
        assert measure.score(word, at(near), True) == MEANS
        assert measure.score(word, at(measure.candidate - 0.01), True) < OPENS
        assert measure.score(word, at(0.99), True) > MEANS
    for word in ("lurch", "crhuch", "xqchurch"):
        assert measure.score(word, at(near), True) < OPENS
