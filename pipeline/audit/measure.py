"""The contract of a measure: it tells of each finished picture what the manifest keeps in columns of its own.

It decides nothing. What becomes of a picture is the detectors' to say, and a reader's, by ``Corpus(where=...)``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.audit.detector import check_finished, constructed
from pipeline.config.options import read_keywords
from pipeline.config.sections.audit import QualityConfig
from pipeline.registry import MEASURES, load_class


class Measure(ABC):
    """Measures pictures, of which it may know the captions.

    A subclass is constructed as ``Subclass(device, **options)``, with the config's ``options`` as keywords, which are
    held to the names and types of its constructor's parameters. It is deterministic: the same pictures and captions, in
    the same batch, give the same values in one environment.
    """

    behind: ClassVar[bool] = False  # it needs no device: it is asked in threads behind it, several at a time
    licence: str = ""  # of its weights, as SPDX or in words

    def __init__(self, device: str) -> None:
        self.device = device

    def files(self) -> Sequence[Path | str]:
        """Return the files of its weights, which are pinned as a detector's are (``Detector.files``)."""
        return ()

    def about(self) -> dict[str, str]:
        """Tell what it is, for the run's record, card and report; with another a corpus is not gone on with."""
        return {"licence": self.licence} if self.licence else {}

    @abstractmethod
    def columns(self) -> Mapping[str, pa.DataType]:
        """Return the manifest's columns by name: numbers, truths, or fixed-size lists of numbers."""

    @abstractmethod
    def measure(self, images: np.ndarray, captions: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return for each column an array of B values, or ``(B, N)`` for lists, of *images*, uint8 ``(B, H, W, 3)``.

        *captions* are what may be trained on beside each, ``""`` where that is nothing. NaN becomes null.
        """


def measure_class(config: QualityConfig, where: str) -> tuple[type[Measure], dict[str, Any]]:
    """Return the class that the config names under the key *where*, and its options; ``ConfigError`` as
    ``detector_class`` raises it."""
    found: type[Measure] = load_class("measure", config.measure, MEASURES, Measure, f"{where}.measure")
    check_finished(f"{where}.measure: {config.measure}", found, "columns and measure")
    return found, read_keywords(f"{where}.options", config.measure, found, 1, config.options)


def load_measure(config: QualityConfig, device: str, where: str) -> Measure:
    """Build the measure that the config names under the key *where*. Raises ``ConfigError`` as ``measure_class`` and
    the measure's own constructor do."""
    return constructed(*measure_class(config, where), device, where)
