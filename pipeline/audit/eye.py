"""One detector of a config at work: what it is asked about, from which scores on it sees that, and what it is."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipeline.audit.calibration import Calibration, Measured, fingerprint
from pipeline.audit.detector import Detector, Sight, load_detector, weights_digest
from pipeline.concepts.concept import Concept
from pipeline.concepts.term import Term
from pipeline.config.problem import under
from pipeline.config.sections.audit import DetectorConfig, Role
from pipeline.errors import ConfigError, EndpointError, named_in_errors


class Eye:
    """A detector and its part of the list. ``concepts`` are those that it judges, ``terms`` these and their anchors."""

    def __init__(self, config: DetectorConfig, detector: Detector, concepts: Sequence[Concept], name: str, where: str):
        """*name* tells it from others, *where* is its key in the config. Raises ``ConfigError`` where it does not know
        a concept that it is given, a threshold is for one that it does not judge, or a calibration is not its own."""
        self.name, self.where, self.detector = name, where, detector
        self.witness = config.role is Role.witness
        self.sha256 = weights_digest(detector, config.options)
        offered = [c for c in concepts if c.audited and (not config.concepts or c.name in config.concepts)]
        with self._asked():
            self.concepts = tuple(concept for concept in offered if detector.knows(concept.term))
        names = [concept.name for concept in self.concepts]
        for concept in config.concepts:
            if concept not in names:
                raise ConfigError(f"{where}.concepts: {name} cannot judge {concept!r}; expected concepts that it knows")
        for concept in config.thresholds:
            if concept not in names:
                raise ConfigError(f"{under(f'{where}.thresholds', concept)}: {name} does not judge it")
        # An anchor is looked for only to caption what stands there, so one that the detector does not know is no error.
        anchors = dict.fromkeys(Term(c.anchor) for c in offered if c.anchor)
        with self._asked():
            self.anchors = tuple(anchor for anchor in anchors if detector.knows(anchor))
        self.terms = tuple(concept.term for concept in self.concepts) + self.anchors
        with self._asked():
            self.thresholds: dict[str, float] = {term: float(detector.threshold(term)) for term in self.terms}
        self.calibrated = self._calibrated(config)
        self.thresholds |= {name: measured.threshold for name, measured in self.calibrated.items()}
        self.thresholds |= config.thresholds

    @classmethod
    def load(cls, config: DetectorConfig, concepts: Sequence[Concept], device: str, name: str, where: str) -> "Eye":
        """Build the detector that *config* names. Raises ``ConfigError`` as ``load_detector`` and the class do."""
        return cls(config, load_detector(config, device, where), concepts, name, where)

    def _calibrated(self, config: DetectorConfig) -> dict[str, Measured]:
        if config.calibration is None:
            return {}
        own = fingerprint(self.detector, config.detector, config.options)
        where = f"{self.where}.calibration: {config.calibration}"
        with self._asked():
            calibration = Calibration.load(config.calibration)
        return calibration.of(where, self.name, own, [c.term for c in self.concepts])

    def see(self, images: np.ndarray) -> Sight:
        """Return what it sees of ``terms`` in *images*, uint8 ``(B, H, W, 3)``; ``ValueError`` where that is none."""
        if not self.terms:
            return Sight(np.zeros((len(images), 0), np.float32))
        with self._asked():
            sight = self.detector.see(images, self.terms)
        shape = (len(images), len(self.terms))
        if sight.scores.shape != shape or not np.isfinite(sight.scores).all():
            raise ValueError(
                f"{type(self.detector).__name__}.score gave shape {sight.scores.shape} or values that are not finite; "
                f"expected finite {shape}"
            )
        if sight.boxes is not None and sight.boxes.shape != (*shape, 4):
            raise ValueError(
                f"{type(self.detector).__name__}.see gave boxes of shape {sight.boxes.shape}; expected {(*shape, 4)}"
            )
        return sight

    def about(self) -> dict[str, str]:
        """Return what the detector tells of itself."""
        with self._asked():
            return self.detector.about()

    def _fingerprint(self, asked: Sequence[str] = ()) -> dict[str, bool]:
        with self._asked():
            return self.detector.fingerprint(asked)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Have what the detector refuses, or an endpoint that is down, begin with its key in the config, and other
        errors name that (see ``named_in_errors``)."""
        try:
            with named_in_errors(f"{self.where}: {self.name}"):
                yield
        except (ConfigError, EndpointError) as error:
            kind = EndpointError if isinstance(error, EndpointError) else ConfigError
            raise kind(f"{self.where}: {error}") from error

    def pinned(self) -> dict[str, Any]:
        """Return what it is, as the run's record keeps it; of one that is not deterministic this asks its questions."""
        facts: dict[str, Any] = {
            "name": self.name,
            "role": str(Role.witness if self.witness else Role.judge),
            "about": self.about(),
            "sha256": self.sha256,
            "thresholds": {concept.name: self.thresholds[concept.name] for concept in self.concepts},
        }
        if self.calibrated:
            facts["calibration"] = {
                name: {"sensitivity": list(measured.sensitivity), "specificity": list(measured.specificity)}
                for name, measured in self.calibrated.items()
                if measured.threshold == self.thresholds[name]  # at another it was not measured
            }
        return facts if self.detector.deterministic else {**facts, "fingerprint": self._fingerprint()}

    def check(self, begun: Mapping[str, Any]) -> None:
        """Raise ``ConfigError`` where it is another than the one that *begun*, a run's record, tells of."""
        ending = "put back what it had, or begin anew elsewhere"
        if self.sha256 != begun["sha256"]:
            raise ConfigError(
                f"{self.where}: weights and code of {self.name} are now {self.sha256 or 'none'}, but the corpus was "
                f"begun with {begun['sha256'] or 'none'}; {ending}"
            )
        now = {"name": self.name, "about": self.about()}
        for key, value in now.items():
            if key in begun and value != begun[key]:
                raise ConfigError(f"{self.where}: {self.name} is now another: {key}: {begun[key]} -> {value}; {ending}")
        told: Mapping[str, bool] = begun.get("fingerprint", {})
        if told and (other := _otherwise(told, self._fingerprint(tuple(told)))):
            raise ConfigError(
                f"{self.where}: {self.name} answers {len(other)} of {len(told)} fixed questions otherwise than when "
                f"the corpus was begun ({'; '.join(other)}): it is another judge; {ending}"
            )


def labels(detectors: Iterable[str]) -> list[str]:
    """Return what the *detectors* of an audit are called: as in the config, and numbered from the second of a name."""
    names: list[str] = []
    counts: Counter[str] = Counter()
    for name in detectors:
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name} {counts[name]}")
    return names


def _otherwise(told: Mapping[str, bool], now: Mapping[str, bool]) -> list[str]:
    other = [(question, now[question]) for question, said in told.items() if now[question] != said]
    return [f"{question}: {'no -> yes' if says else 'yes -> no'}" for question, says in other]
