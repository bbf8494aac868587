"""Judge pictures against an erasure list: which concepts are seen in them, and which anchors stand in their place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audit.detector import Detector, load_detector, weights_digest
from pipeline.concepts.concept import Concept
from pipeline.concepts.term import Term
from pipeline.config.schema import AuditConfig
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was seen in one picture.

    ``scores``: probability per concept name, for every concept of the list, found or not. ``found``: the concepts at or
    over their threshold. ``anchors``: the anchors seen, by the same rule.
    """

    scores: dict[str, float]
    found: tuple[str, ...]
    anchors: frozenset[str]


class Auditor:
    """A detector together with the list that it enforces."""

    def __init__(
        self, detector: Detector, concepts: Sequence[Concept], thresholds: dict[str, float], revision: str = ""
    ):
        """Raise ``ConfigError`` if a concept cannot be judged: a list that is not checked is not a promise."""
        self.detector = detector
        self.revision = revision  # of the detector's weights and code, as ``weights_digest`` tells it
        self.concepts = tuple(concepts)
        for concept in self.concepts:
            if not detector.knows(concept.term):
                raise ConfigError(
                    f"audit.detector: {type(detector).__name__} cannot judge the concept {concept.name!r}; "
                    "use a detector that knows it, or `audit: {detector: null}` to run without an audit"
                )
        # An anchor is looked for only to caption what stands there, so one that the detector does not know is no error.
        anchors = dict.fromkeys(Term(c.anchor) for c in self.concepts if c.anchor)
        self.anchors = tuple(anchor for anchor in anchors if detector.knows(anchor))
        self.terms = tuple(c.term for c in self.concepts) + self.anchors
        self.thresholds: dict[str, float] = {t: thresholds.get(t, detector.threshold(t)) for t in self.terms}

    @classmethod
    def load(cls, config: AuditConfig, concepts: Sequence[Concept], device: str) -> "Auditor | None":
        """Build the auditor that the config asks for; ``None`` where it asks for none or the list is empty."""
        if config.detector is None or not concepts:
            return None
        detector = load_detector(config, device)
        return cls(detector, concepts, config.thresholds, weights_digest(detector, config.options))

    def check_size(self, width: int, height: int) -> None:
        """Raise ``ConfigError`` if pictures of this size cannot be judged."""
        if not self.detector.takes(width, height):
            raise ConfigError(
                f"audit.detector: {type(self.detector).__name__} cannot judge pictures of {width}x{height} pixels; "
                "use one that can, another size, or `audit: {detector: null}` to run without an audit"
            )

    def judge(self, images: np.ndarray) -> list[Verdict]:
        """Return one verdict per picture of *images*, uint8 ``(B, H, W, 3)``."""
        scores = self.detector.see(images, self.terms).scores
        if scores.shape != (len(images), len(self.terms)) or not np.isfinite(scores).all():
            raise ValueError(
                f"{type(self.detector).__name__}.score gave shape {scores.shape} or values that are not finite; "
                f"expected finite {(len(images), len(self.terms))}"
            )
        return [self._verdict(row) for row in scores]

    def _verdict(self, row: np.ndarray) -> Verdict:
        by_term: dict[str, float] = dict(zip(self.terms, map(float, row), strict=True))
        seen = {term for term, score in by_term.items() if score >= self.thresholds[term]}
        names = [concept.name for concept in self.concepts]
        return Verdict(
            scores={name: by_term[name] for name in names},
            found=tuple(name for name in names if name in seen),
            anchors=frozenset(seen.intersection(self.anchors)),
        )
