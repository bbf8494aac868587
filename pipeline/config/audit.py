"""What ``audit`` of a config may not say, told without loading a detector."""

from pipeline.concepts.mentions import Naming
from pipeline.config.concepts import concepts_of
from pipeline.config.problem import Problem, check_range, show, under
from pipeline.config.schema import Audited, Config
from pipeline.config.sections.audit import AuditConfig, CaptionPolicy, DetectorConfig, Policy
from pipeline.errors import ConfigError, nearest
from pipeline.registry import DETECTORS, MEASURES, check_name


def check_audit(config: Config) -> None:
    """Raise ``Problem`` for the first setting of ``audit`` that cannot work."""
    audit = config.audit
    if not audit.detectors:
        if audit.policy is not Policy.keep:
            raise Problem("audit.policy", f"{audit.policy} needs a detector; set audit.detectors, or policy: keep")
        if audit.captions is CaptionPolicy.anchor:
            raise Problem("audit.captions", "anchor needs a detector; set audit.detectors, or captions: drop")
        if audit.unjudged:
            raise Problem("audit.unjudged", "is given without audit.detectors, where nothing is judged at all")
    check_range("audit.attempts", audit.attempts, 1, 100)
    _listed("audit.unjudged", audit.unjudged, config)
    for i, detector in enumerate(audit.detectors):
        _detector(f"audit.detectors[{i}]", detector, config)
    _quality(audit)
    _caption_subject(config)


def _quality(audit: AuditConfig) -> None:
    named = [one.measure for one in audit.quality]
    for i, name in enumerate(named):
        key = f"audit.quality[{i}].measure"
        try:
            check_name("measure", name, MEASURES)
        except ConfigError as error:
            raise Problem(key, str(error)) from None
        if name in named[:i]:
            raise Problem(key, f"{name!r} is named twice, and the manifest has a column of each name once")


def _detector(key: str, detector: DetectorConfig, config: Config) -> None:
    try:
        check_name("detector", detector.detector, DETECTORS)
    except ConfigError as error:
        raise Problem(f"{key}.detector", str(error)) from None
    names = [concept.name for concept in config.erasure.concepts]
    _listed(f"{key}.concepts", detector.concepts, config)
    free = [concept.name for concept in config.erasure.concepts if concept.audit is Audited.none]
    for i, name in enumerate(detector.concepts):
        if name in free:
            raise Problem(f"{key}.concepts[{i}]", f"{name!r} is listed with `audit: none`; expected one of the two")
    for name, threshold in detector.thresholds.items():
        here = under(f"{key}.thresholds", name)
        if name not in names:
            raise Problem(here, f"is not in the erasure list{nearest(name, names)}")
        if detector.concepts and name not in detector.concepts:
            raise Problem(here, f"is not among this detector's concepts, {', '.join(detector.concepts)}")
        check_range(here, threshold, 0, 1)


def _listed(key: str, given: list[str], config: Config) -> None:
    names = [concept.name for concept in config.erasure.concepts]
    for i, name in enumerate(given):
        if name not in names:
            raise Problem(f"{key}[{i}]", f"{name!r} is not in the erasure list{nearest(name, names)}")
        if name in given[:i]:
            raise Problem(f"{key}[{i}]", f"{name!r} is named twice")


def _caption_subject(config: Config) -> None:
    subject = config.audit.caption_subject
    if subject is None:
        return
    if not any(character.isalnum() for character in subject):
        raise Problem("audit.caption_subject", f"is {show(subject)}; expected words such as 'a picture', or null")
    for found in Naming(concepts_of(config.erasure)).mentions(subject):
        raise Problem(
            "audit.caption_subject",
            f"{subject!r} contains {subject[found.start : found.stop]!r}, a word for {found.concept.name!r}; expected "
            "other words, or null",
        )
