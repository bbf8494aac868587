"""Whether a config's detectors and measures, and their options, can be used, told from their classes alone: no weights
are read."""

from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config
from pipeline.config.sections.audit import CaptionPolicy, DetectorConfig, QualityConfig
from pipeline.registry import DETECTORS, MEASURES


def check_detectors(config: Config) -> None:
    """Refuse, in one line, an unknown or unfinished detector or measure, and options that it does not take."""
    for i, detector in enumerate(config.audit.detectors):
        _check(detector, i)
    for i, measure in enumerate(config.audit.quality):
        _check_measure(measure, i)


def check_detectors_here(config: Config) -> None:
    """Do so of those that Lacuna brings: one of the user's own need be importable only where pictures are made."""
    for i, detector in enumerate(config.audit.detectors):
        if detector.detector in DETECTORS:
            _check(detector, i)
    for i, measure in enumerate(config.audit.quality):
        if measure.measure in MEASURES:
            _check_measure(measure, i)


def _check(detector: DetectorConfig, i: int) -> None:
    from pipeline.audit.detector import detector_class

    detector_class(detector, f"audit.detectors[{i}]")


def _check_measure(measure: QualityConfig, i: int) -> None:
    from pipeline.audit.measure import measure_class

    measure_class(measure, f"audit.quality[{i}]")


def unseen_anchors(config: Config) -> list[str]:
    """Return a line for each anchor that no detector of *config* knows, where captions are to name it if one sees it.

    Loads the detectors, on the CPU. Raises ``ConfigError`` as ``Auditor.load`` does.
    """
    if config.audit.captions is not CaptionPolicy.anchor:
        return []
    from pipeline.audit.auditor import Auditor

    concepts = concepts_of(config.erasure)
    auditor = Auditor.load(config.audit, concepts, "cpu")
    known = () if auditor is None else auditor.anchors
    return [
        f"anchors   {concept.anchor!r} of {concept.name!r} is unknown to the detectors, so no caption will name it"
        for concept in concepts
        if auditor is not None and concept.anchor and concept.anchor not in known
    ]
