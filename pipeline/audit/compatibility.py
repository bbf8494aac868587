"""Whether a config's detectors and their options can be used, told from their classes alone: no weights are read."""

from pipeline.config.schema import Config, DetectorConfig
from pipeline.registry import DETECTORS


def check_detectors(config: Config) -> None:
    """Refuse, in one line, an unknown or unfinished detector, and options that it does not take."""
    for i, detector in enumerate(config.audit.detectors):
        _check(detector, i)


def check_detectors_here(config: Config) -> None:
    """Do so of detectors that Lacuna brings: one of the user's own need be importable only where pictures are made."""
    for i, detector in enumerate(config.audit.detectors):
        if detector.detector in DETECTORS:
            _check(detector, i)


def _check(detector: DetectorConfig, i: int) -> None:
    from pipeline.audit.detector import detector_class

    detector_class(detector, f"audit.detectors[{i}]")
