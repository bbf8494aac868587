"""The contract of a detector: it looks at finished pictures and gives a probability for each term it is asked about.

It knows nothing of prompts, policies or files, so that its eye cannot be swayed by what was asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config.schema import AuditConfig
from pipeline.errors import ConfigError
from pipeline.registry import DETECTORS, load_class


class Detector(ABC):
    """Sees terms (a concept's name, an anchor) in pictures.

    A subclass is constructed as ``Subclass(device, **options)``, with ``audit.options`` of the config as keywords; one
    that has no options, and loads nothing onto a device, needs no constructor. It must be deterministic: the same
    pictures give the same scores in one environment, or resumed corpora differ.
    """

    def __init__(self, device: str) -> None:
        self.device = device

    @abstractmethod
    def knows(self, term: str) -> bool:
        """Tell whether *term* can be judged at all."""

    def takes(self, width: int, height: int) -> bool:
        """Tell whether pictures of so many pixels can be judged."""
        return True

    @abstractmethod
    def threshold(self, term: str) -> float:
        """Return the probability from which *term* counts as seen, unless the config sets another."""

    @abstractmethod
    def score(self, images: np.ndarray, terms: Sequence[str]) -> np.ndarray:
        """Return probabilities, float32 ``(B, len(terms))`` in [0, 1], for *images*, uint8 ``(B, H, W, 3)``."""


def load_detector(config: AuditConfig, device: str) -> Detector:
    """Build the detector that the config names; ``ConfigError`` for an unknown name or option, or one unfinished."""
    assert config.detector is not None
    detector_class = load_class("detector", config.detector, DETECTORS, Detector)
    if missing := sorted(getattr(detector_class, "__abstractmethods__", ())):
        raise ConfigError(
            f"audit.detector: {config.detector} does not define {', '.join(missing)}; "
            "expected knows, threshold and score"
        )
    options: dict[str, Any] = dict(config.options)
    try:
        detector: Detector = detector_class(device, **options)
        return detector
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(f"audit.options: {error} (detector {config.detector!r})") from error
