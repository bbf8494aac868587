"""A detector that is simple and real: it calls a picture "light" by its mean brightness."""

from collections.abc import Sequence

import numpy as np

from pipeline.audit.detector import Detector


class Brightness(Detector):
    """Gives the share of white; ``cut`` is its threshold."""

    def __init__(self, device: str, cut: float = 0.5):
        self.cut = cut

    def knows(self, term: str) -> bool:
        return term in ("light", "dark")

    def threshold(self, term: str) -> float:
        return self.cut

    def score(self, images: np.ndarray, terms: Sequence[str]) -> np.ndarray:
        light = images.mean(axis=(1, 2, 3)) / 255
        return np.stack([light if term == "light" else 1 - light for term in terms], axis=1).astype(np.float32)
