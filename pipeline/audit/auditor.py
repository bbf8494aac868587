"""Judge pictures against an erasure list: which concepts are seen in them, and which anchors stand in their place."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.audit.detector import Sight
from pipeline.audit.eye import Eye, labels
from pipeline.audit.verdict import Box, Judgement, Verdict
from pipeline.concepts.concept import Concept
from pipeline.config.extras import check_extras_of_detectors
from pipeline.config.sections.audit import AuditConfig, Combine
from pipeline.errors import ConfigError


class Auditor:
    """Detectors together with the list that they enforce.

    ``unjudged`` are the names of the concepts that none of them judges, as the config allows.
    """

    def __init__(
        self,
        eyes: Sequence[Eye],
        concepts: Sequence[Concept],
        combine: Combine = Combine.any,
        unjudged: Sequence[str] = (),
    ):
        """Raise ``ConfigError`` if a concept has no judge and is not among *unjudged*: a list that is not checked is
        not a promise."""
        self.eyes = tuple(eyes)
        self.combine = combine
        judges = [eye for eye in self.eyes if not eye.witness]
        judged = {concept.name for eye in judges for concept in eye.concepts}
        for concept in concepts:
            if concept.audited and concept.name not in judged and concept.name not in unjudged:
                raise ConfigError(
                    f"audit.detectors: {_named(judges)} cannot judge the concept {concept.name!r}; add a detector that "
                    "knows it, list it in audit.unjudged, or set `audit: none` with it"
                )
        for eye in self.eyes:
            if not eye.concepts:
                raise ConfigError(f"{eye.where}: {eye.name} knows no concept that is to be judged; leave it out")
        self.names = tuple(concept.name for concept in concepts if concept.name in judged)
        self.unjudged = tuple(concept.name for concept in concepts if concept.name not in judged)
        self.anchors = tuple(dict.fromkeys(anchor for eye in judges for anchor in eye.anchors))
        # For each term the judges that are asked about it, and the column of their scores.
        self._judges: dict[str, list[tuple[int, int]]] = {
            str(term): [(i, e.terms.index(term)) for i, e in enumerate(self.eyes) if not e.witness and term in e.terms]
            for term in (*self.names, *self.anchors)
        }

    @classmethod
    def load(cls, config: AuditConfig, concepts: Sequence[Concept], device: str) -> "Auditor | None":
        """Build the auditor that the config asks for; ``None`` where it asks for none or the list is empty."""
        if not config.detectors or not concepts:
            return None
        check_extras_of_detectors(config.detectors, "audit.detectors")
        names = labels(detector.detector for detector in config.detectors)
        eyes = [
            Eye.load(detector, concepts, device, name, f"audit.detectors[{i}]")
            for i, (detector, name) in enumerate(zip(config.detectors, names, strict=True))
        ]
        return cls(eyes, concepts, config.combine, config.unjudged)

    def check_size(self, width: int, height: int) -> None:
        """Raise ``ConfigError`` if pictures of this size cannot be judged."""
        for eye in self.eyes:
            if not eye.detector.takes(width, height):
                raise ConfigError(
                    f"{eye.where}: {eye.name} cannot judge pictures of {width}x{height} pixels; use one that can, "
                    "another size, or `audit: {detectors: []}` to run without an audit"
                )

    def pinned(self) -> list[dict[str, Any]]:
        """Return what looks, as a run's record keeps it."""
        return [eye.pinned() for eye in self.eyes]

    def check(self, begun: Sequence[Mapping[str, Any]]) -> None:
        """Raise ``ConfigError`` where other detectors look than those of *begun*, a run's record."""
        for eye, facts in zip(self.eyes, begun, strict=True):
            eye.check(facts)

    def judge(self, images: np.ndarray) -> list[Verdict]:
        """Return one verdict per picture of *images*, uint8 ``(B, H, W, 3)``."""
        sights = [eye.see(images) for eye in self.eyes]
        return [self._verdict(i, sights) for i in range(len(images))]

    def _verdict(self, picture: int, sights: Sequence[Sight]) -> Verdict:
        scores, seen = {}, set()
        for term, judges in self._judges.items():
            given = [float(sights[eye].scores[picture, column]) for eye, column in judges]
            limits = [self.eyes[eye].thresholds[term] for eye, _ in judges]
            scores[term], is_seen = _together(self.combine, given, limits)
            if is_seen:
                seen.add(term)
        return Verdict(
            scores={name: scores[name] for name in self.names},
            found=tuple(name for name in self.names if name in seen),
            anchors=frozenset(map(str, self.anchors)) & seen,
            judged=tuple(
                Judgement(
                    detector=eye.name,
                    concept=concept.name,
                    score=float(sight.scores[picture, column]),
                    box=_box(sight, picture, column),
                )
                for eye, sight in zip(self.eyes, sights, strict=True)
                for column, concept in enumerate(eye.concepts)
            ),
        )


def _together(combine: Combine, scores: Sequence[float], thresholds: Sequence[float]) -> tuple[float, bool]:
    """Return the score that judges give together, and whether they see it."""
    each = [score >= threshold for score, threshold in zip(scores, thresholds, strict=True)]
    match combine:
        case Combine.any:
            return max(scores), any(each)
        case Combine.all:
            return min(scores), all(each)
        case Combine.mean:
            mean = sum(scores) / len(scores)
            return mean, mean >= sum(thresholds) / len(thresholds)


def _box(sight: Sight, picture: int, column: int) -> Box | None:
    if sight.boxes is None or np.isnan(sight.boxes[picture, column]).any():
        return None
    x0, y0, x1, y1 = map(float, sight.boxes[picture, column])
    return x0, y0, x1, y1


def _named(eyes: Sequence[Eye]) -> str:
    return " and ".join(eye.name for eye in eyes) or "a witness alone"
