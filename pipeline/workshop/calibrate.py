"""``lacuna calibrate``: the detectors of an audit look at pictures that people labelled, and their thresholds are set.

A score that a detector gives is no probability on anybody's pictures before it was compared with what they show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pipeline.audit.auditor import Auditor
from pipeline.audit.calibration import Calibrated, Calibration, Measured, fingerprint, measure
from pipeline.audit.eye import Eye
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.pages.page import render
from pipeline.session import resolve_device
from pipeline.workshop.labelled import Labelled, read_labelled

TOGETHER = 16  # pictures of one size that are judged at once
WIDTH = 100  # of a curve, in its own units


@dataclass(frozen=True, kw_only=True)
class Report:
    """A calibration and what is to be said of it."""

    calibration: Calibration
    labelled: Labelled
    unjudged: tuple[str, ...]  # concepts with labels that no detector judges
    unlabelled: tuple[str, ...]  # concepts that a detector judges and nobody labelled

    def text(self) -> str:
        """Return a line for each detector and concept, and what is wanting."""
        lines = [self._pictures()]
        for one in self.calibration.detectors:
            lines += [f"{one.detector}: {name}: {said(found)}" for name, found in one.concepts.items()]
        return "\n".join([*lines, *self.wanting()])

    def wanting(self) -> list[str]:
        """Return what the figures lack, a line each."""
        rate, lines = self.calibration.false_alarms, []
        needed = int(np.ceil(1 / rate - 1 - 1e-9))
        few = {
            name: found.specificity[1]
            for one in self.calibration.detectors
            for name, found in one.concepts.items()
            if found.few
        }
        if few:
            told = ", ".join(f"{name} ({without:,})" for name, without in few.items())
            lines.append(
                f"too few pictures without it for false alarms of {rate:.3g}: {told}; expected at least {needed:,}. "
                "The threshold is just above the highest score among them; the bound says what that shows"
            )
        blind = [
            name
            for one in self.calibration.detectors
            for name, found in one.concepts.items()
            if not found.sensitivity[1]
        ]
        if blind:
            lines.append(
                f"no picture shows it, so how often it is missed is not known: {', '.join(dict.fromkeys(blind))}"
            )
        if self.unlabelled:
            lines.append(f"nobody labelled pictures for, and so not calibrated: {', '.join(self.unlabelled)}")
        if self.unjudged:
            lines.append(f"labelled, and judged by no detector: {', '.join(self.unjudged)}")
        return lines

    def page(self) -> str:
        """Return the page of curves."""
        return render(
            "calibration.html",
            title="Calibration",
            pictures=self._pictures(),
            rate=f"{self.calibration.false_alarms:.3g}",
            wanting=self.wanting(),
            detectors=[
                {
                    "name": one.detector,
                    "about": "; ".join(f"{key} {value}" for key, value in one.about.items()),
                    "concepts": [_drawn(name, found) for name, found in one.concepts.items()],
                }
                for one in self.calibration.detectors
            ],
        )

    def _pictures(self) -> str:
        labelled = self.labelled
        parts = [f"{self.calibration.pictures:,} labelled pictures"]
        if labelled.several:
            parts.append(
                f"{labelled.several:,} labels by several reviewers, who disagreed on {labelled.disputed:,}"
                + (f" ({labelled.tied:,} without a majority, left out)" if labelled.tied else "")
            )
        if labelled.changed:
            answers = "answer" if labelled.changed == 1 else "answers"
            parts.append(
                f"{labelled.changed:,} {answers} given otherwise before by the same reviewer (the last counts)"
            )
        if labelled.left_out:
            files = (
                "file left out that is no picture" if labelled.left_out == 1 else "files left out that are no pictures"
            )
            parts.append(f"{labelled.left_out:,} {files}")
        return "; ".join(parts)


def calibrate(config: Config, pictures: Path, false_alarms: float) -> Report:
    """Have the detectors of *config* look at labelled *pictures*. Raises ``ConfigError`` for what cannot be used."""
    if not config.audit.detectors:
        raise ConfigError("audit.detectors: names no detector, so there is nothing to calibrate")
    labelled = read_labelled(pictures, config)
    torch.set_num_threads(config.cluster.threads_per_worker)
    own = [replace(detector, calibration=None, thresholds={}) for detector in config.audit.detectors]
    concepts = concepts_of(config.erasure)
    auditor = Auditor.load(replace(config.audit, detectors=own), concepts, resolve_device(config.cluster.device))
    assert auditor is not None  # there are detectors, and labels are of concepts
    told = {name for shown in labelled.shows.values() for name in shown}
    judged = {concept.name for eye in auditor.eyes for concept in eye.concepts}
    scores = _look(auditor.eyes, labelled, told)
    calibrated = []
    for eye, detector, given in zip(auditor.eyes, own, scores, strict=True):
        measured: dict[str, Measured] = {}
        for column, concept in enumerate(eye.concepts):
            if concept.name in told:
                labels = [
                    (name, shown[concept.name]) for name, shown in labelled.shows.items() if concept.name in shown
                ]
                yes, no = (
                    [given[name][column] for name, shows in labels if shows is wanted] for wanted in (True, False)
                )
                measured[concept.name] = measure(concept.term, yes, no, false_alarms)
        calibrated.append(
            Calibrated(
                detector=eye.name,
                fingerprint=fingerprint(eye.detector, detector.detector, detector.options),
                about=eye.about(),
                concepts=measured,
            )
        )
    return Report(
        calibration=Calibration(false_alarms=false_alarms, pictures=len(labelled.shows), detectors=tuple(calibrated)),
        labelled=labelled,
        unjudged=tuple(sorted(labelled.named - judged)),
        unlabelled=tuple(sorted(judged - told)),
    )


def _look(eyes: Sequence[Eye], labelled: Labelled, told: set[str]) -> list[dict[str, np.ndarray]]:
    """Return for each eye the scores of each picture that it is to be measured on, float32 ``(concepts,)``."""
    wanted = [
        name
        for name, shown in labelled.shows.items()
        if any(concept.name in shown for eye in eyes for concept in eye.concepts)
    ]
    if not wanted:
        raise ConfigError(f"no detector judges what is labelled: {', '.join(sorted(told))}")
    found: list[dict[str, np.ndarray]] = [{} for _ in eyes]
    waiting: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
    with tqdm(total=len(wanted), desc="calibrate", unit="picture") as bar:
        for name in wanted:
            image = labelled.read(name)
            batch = waiting.setdefault(image.shape, [])
            batch.append((name, image))
            if len(batch) == TOGETHER:
                bar.update(_judge(eyes, waiting.pop(image.shape), found))
            elif sum(map(len, waiting.values())) >= 4 * TOGETHER:  # of many sizes: no more is held than that
                bar.update(_judge(eyes, waiting.pop(max(waiting, key=lambda size: len(waiting[size]))), found))
        for batch in waiting.values():
            bar.update(_judge(eyes, batch, found))
    return found


def _judge(eyes: Sequence[Eye], batch: Sequence[tuple[str, np.ndarray]], found: Sequence[dict[str, np.ndarray]]) -> int:
    """Add what each eye sees in a *batch* of one size; return how many pictures it has."""
    images = np.stack([image for _, image in batch])
    height, width = images.shape[1:3]
    for eye, given in zip(eyes, found, strict=True):
        if not eye.detector.takes(width, height):
            raise ConfigError(f"{batch[0][0]}: {eye.name} cannot judge pictures of {width}x{height} pixels")
        for (name, _), row in zip(batch, eye.see(images).scores, strict=True):
            given[name] = row
    return len(batch)


def said(found: Measured) -> str:
    """Say what was measured, in a line."""
    seen, showing = found.sensitivity
    low, high = found.found
    without = found.specificity[1]
    finds = f"finds {seen:,} of {showing:,}"
    if showing:
        finds += f" = {seen / showing:.1%} ({low:.1%} to {high:.1%})"
    alarms = f"false alarms {found.false_alarms:,} of {without:,} (under {found.false_alarms_bound:.2%}, at 95 %)"
    return f"threshold {found.threshold:.4g}: {finds}; {alarms}"


def _drawn(name: str, found: Measured) -> dict[str, object]:
    """Return a concept's part of the page: its curve goes up from no false alarm to all, the chosen threshold a dot."""
    showing, without = max(1, found.sensitivity[1]), found.specificity[1]
    points = [(0.0, 0.0), *((no / without, yes / showing) for _, yes, no in found.curve)]
    return {
        "name": name,
        "said": said(found),
        "few": found.few,
        "known": found.sensitivity[1] > 0,
        "points": " ".join(f"{WIDTH * x:.2f},{WIDTH * (1 - y):.2f}" for x, y in points),
        "x": f"{WIDTH * found.false_alarms / without:.2f}",
        "y": f"{WIDTH * (1 - found.sensitivity[0] / showing):.2f}",
    }
