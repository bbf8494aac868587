"""At which score a detector sees a concept, and how often it errs there: measured on labelled pictures.

The threshold for a false-alarm rate r is set by the pictures without the concept alone: of n of them, just above the
k-th highest score, k = floor(r (n + 1)). A new picture of their kind is then over it with a chance of at most r (Vovk
et al. 2005, Algorithmic Learning in a Random World, section 2; the same as a tolerance limit of Wilks 1941). With fewer
than 1/r - 1 pictures there is no such k; then it is just above the highest, and ``few`` says so. That the threshold was
chosen on the same pictures does not harm the exact bound of the false alarms: of the k - 1 left over it, Clopper and
Pearson's upper bound is the quantile of the order statistic. The sensitivity is counted on pictures that had no part
in the choice.

A file of calibration holds this for each detector and concept, with what the detector was and what it was asked.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.audit.detector import Detector, files_digest, named_files, weights_digest
from pipeline.concepts.term import Term
from pipeline.errors import ConfigError
from pipeline.statements import statements
from pipeline.statistics import clopper_pearson, wilson

FORMAT = 2
OURS = __name__.partition(".")[0]
POINTS = 201  # of a curve, at most
LEVEL = 0.05  # at which a bound may be wrong

Counts = tuple[int, int]  # hits, trials


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a detector does with one concept. ``sensitivity`` counts (seen, pictures with it), ``specificity`` (not
    seen, pictures without it), both at ``threshold``; ``curve`` has (threshold, seen with it, seen without it), from
    the highest threshold down. ``term`` names what it was asked."""

    threshold: float
    sensitivity: Counts
    specificity: Counts
    few: bool
    term: str
    curve: tuple[tuple[float, int, int], ...] = ()

    @property
    def found(self) -> tuple[float, float]:
        """The 95 % interval of the sensitivity (Wilson); 0 to 1 without pictures of it."""
        return wilson(*self.sensitivity)

    @property
    def false_alarms(self) -> int:
        unseen, without = self.specificity
        return without - unseen

    @property
    def false_alarms_bound(self) -> float:
        """The upper bound of the false-alarm rate, wrong with a chance of at most 5 % (Clopper and Pearson)."""
        return clopper_pearson(self.false_alarms, self.specificity[1], LEVEL)[1]


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """One detector's part of a calibration; ``fingerprint`` is that of ``fingerprint``."""

    detector: str
    fingerprint: Mapping[str, str]
    about: Mapping[str, str]
    concepts: Mapping[str, Measured]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What ``lacuna calibrate`` found. ``false_alarms`` is the rate that was asked for, ``pictures`` their number."""

    false_alarms: float
    pictures: int
    detectors: tuple[Calibrated, ...]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file of ``lacuna calibrate``. Raises ``ConfigError`` where it is none."""
        try:
            held = json.loads(Path(path).read_text(encoding="utf-8"))
            if held["format"] != FORMAT:
                raise ConfigError(
                    f"{path}: is a calibration of format {held['format']}; expected {FORMAT}: calibrate it again"
                )
            return cls(
                false_alarms=held["false_alarms"],
                pictures=held["pictures"],
                detectors=tuple(_calibrated(one) for one in held["detectors"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = getattr(error, "strerror", None) or f"is no calibration ({type(error).__name__}: {error})"
            raise ConfigError(f"{path}: {reason}; expected a file that `lacuna calibrate` wrote") from None

    def of(self, path: str, name: str, own: Mapping[str, str], terms: Sequence[Term]) -> dict[str, Measured]:
        """Return what was measured for those of *terms* that are in it, by the detector *name* of fingerprint *own*.

        *path* begins each message. Raises ``ConfigError`` where it is of another detector, or asked something else.
        """
        mine = [one for one in self.detectors if one.fingerprint == own]
        if not mine:
            raise ConfigError(f"{path}: is of {self._otherwise(name, own)}; calibrate it again")
        known = {name: measured for one in mine for name, measured in one.concepts.items()}
        found = {str(term): known[term] for term in terms if term in known}
        for term in terms:
            if term in found and found[term].term != term_digest(term):
                raise ConfigError(
                    f"{path}: {name} was calibrated for {str(term)!r} with other words, kind or references than it has "
                    "now; calibrate it again"
                )
        return found

    def _otherwise(self, name: str, own: Mapping[str, str]) -> str:
        """Say in what the detector *name* of fingerprint *own* differs from those that were calibrated."""
        alike = [one.fingerprint for one in self.detectors if one.fingerprint["detector"] == own["detector"]]
        if not alike:
            return f"{', '.join(one.detector for one in self.detectors)}, and not of {name}"
        parts = [[part for part, value in own.items() if one.get(part) != value] for one in alike]
        fewest: list[str] = min(parts, key=len)
        return f"{name} with other {' and '.join(fewest)}"

    def write(self) -> bytes:
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)
        points = re.sub(r"\[\s+([\d.e-]+),\s+(\d+)(?:,\s+(\d+))?\s+\]", _on_one_line, text)
        return f"{points}\n".encode()


def measure(term: Term, having: Sequence[float], without: Sequence[float], rate: float) -> Measured:
    """Return the threshold for *rate* and what it does: *having* and *without* are float32 scores of pictures that show
    *term* and that do not. Raises ``ConfigError`` where none is without it."""
    if not len(without):
        raise ConfigError(
            f"{str(term)!r}: no picture is labelled as without it; expected some, in `none` or as label 0"
        )
    yes, no = np.sort(np.asarray(having, np.float32)), np.sort(np.asarray(without, np.float32))
    allowed = math.floor(rate * (len(no) + 1) + 1e-9)
    threshold = np.nextafter(no[-max(allowed, 1)], np.float32(np.inf))
    scores = np.unique(np.concatenate([yes, no, [threshold]]))[::-1]
    kept = scores[np.unique(np.linspace(0, len(scores) - 1, POINTS).round().astype(int))]
    return Measured(
        threshold=float(threshold),
        sensitivity=(_over(yes, threshold), len(yes)),
        specificity=(len(no) - _over(no, threshold), len(no)),
        few=allowed < 1,
        term=term_digest(term),
        curve=tuple((float(score), _over(yes, score), _over(no, score)) for score in kept),
    )


def fingerprint(detector: Detector, name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return what *detector* is: its *name* in configs, and "sha256:…" over its options, its weights, the code by which
    it looks, and what it tells of itself. Where files lie does not count."""
    files = {str(path) for path in named_files(options.values())}
    return {
        "detector": name,
        "options": _digest({key: value for key, value in options.items() if str(value) not in files}),
        "weights": weights_digest(detector, options),
        "code": _digest([statements(path) for path in looks_by(type(detector))]),
        "model or dtype": _digest(detector.about()),
    }


def looks_by(detector: type[Detector]) -> list[Path]:
    """Return the files of ours by which a *detector* prepares pictures and looks: of its classes, and what these use
    of their own folders. Those of a user's own class are among its weights (``weights_digest``)."""
    classes = [found for found in detector.__mro__ if issubclass(found, Detector) and found is not Detector]
    new = {found.__module__ for found in classes if found.__module__.startswith(f"{OURS}.")}
    modules: set[str] = set()
    while new:
        modules |= new
        used = {
            (str(getattr(value, "__module__", "")), module)
            for module in new
            for value in vars(sys.modules[module]).values()
        }
        new = {name for name, by in used if name.rpartition(".")[0] == by.rpartition(".")[0]} - modules
        new.discard(Detector.__module__)
    return [Path(str(sys.modules[module].__file__)) for module in sorted(modules)]


def term_digest(term: Term) -> str:
    """Return "sha256:…" over all that a detector may know *term* by."""
    pictures = [files_digest([path]) for path in term.references]
    return _digest({"name": str(term), "words": term.words, "kind": term.kind, "references": pictures})


def _digest(value: Any) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()}"


def _over(scores: np.ndarray, threshold: np.floating[Any]) -> int:
    """How many of the sorted *scores* are at *threshold* or over it."""
    return int(len(scores) - np.searchsorted(scores, threshold))


def _calibrated(held: Mapping[str, Any]) -> Calibrated:
    concepts = {
        str(name): Measured(
            threshold=float(one["threshold"]),
            sensitivity=_counts(one["sensitivity"]),
            specificity=_counts(one["specificity"]),
            few=bool(one["few"]),
            term=str(one["term"]),
            curve=tuple((float(score), int(yes), int(no)) for score, yes, no in one["curve"]),
        )
        for name, one in held["concepts"].items()
    }
    return Calibrated(
        detector=str(held["detector"]),
        fingerprint={str(part): str(value) for part, value in held["fingerprint"].items()},
        about=held["about"],
        concepts=concepts,
    )


def _on_one_line(match: re.Match[str]) -> str:
    return f"[{', '.join(filter(None, match.groups()))}]"


def _counts(pair: Sequence[Any]) -> Counts:
    hits, trials = map(int, pair)
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials}")
    return hits, trials
