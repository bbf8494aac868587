"""Detector A of the built-in world, as an auditor of runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.audit.detector import Detector
from pipeline.diorama.detector import DioramaDetector, weights_path
from pipeline.diorama.world import PICTURE_SIZE, canonical


class DioramaAudit(Detector):
    """Judges the objects and styles of the diorama, under any word that the world has for them."""

    licence = "Apache-2.0"

    def __init__(self, device: str):
        self.model = DioramaDetector.load("a", device=device)

    def files(self) -> Sequence[Path]:
        return [weights_path("a")]

    def about(self) -> dict[str, str]:
        return {"model": "the diorama's detector A", "dtype": "float32", **super().about()}

    def knows(self, term: str) -> bool:
        return self._class(term) in self.model.classes

    def takes(self, width: int, height: int) -> bool:
        return (width, height) == (PICTURE_SIZE, PICTURE_SIZE)

    def threshold(self, term: str) -> float:
        return self.model.thresholds[self._class(term)]

    def score(self, images: np.ndarray, terms: Sequence[str]) -> np.ndarray:
        columns = [self.model.classes.index(self._class(term)) for term in terms]
        with torch.inference_mode():
            return self.model.probabilities(torch.from_numpy(images)).cpu().numpy()[:, columns]

    @staticmethod
    def _class(term: str) -> str:
        return canonical(term) or term
