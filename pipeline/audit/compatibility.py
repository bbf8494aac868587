"""Whether a config's detector and its options can be used, told from its class alone: no weights are read."""

from pipeline.config.schema import Config
from pipeline.registry import DETECTORS


def check_detector(config: Config) -> None:
    """Refuse, in one line, an unknown or unfinished detector, and options that it does not take."""
    if config.audit.detector is not None:
        from pipeline.audit.detector import detector_class

        detector_class(config.audit)


def check_detector_here(config: Config) -> None:
    """Do so of a detector that Lacuna brings: one of the user's own need be importable only where pictures are made."""
    if config.audit.detector in DETECTORS:
        check_detector(config)
