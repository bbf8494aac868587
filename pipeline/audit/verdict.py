"""What was seen in a picture: by each detector, and by all of them together."""

from dataclasses import dataclass

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels from the upper left


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one detector, judge or witness, saw of one concept: a score in [0, 1] and, where it tells one, the place."""

    detector: str
    concept: str
    score: float
    box: Box | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was seen in one picture.

    ``scores``: what the judges together give each concept that has a judge, found or not (``Combine``). ``found``: the
    concepts that they see. ``anchors``: the anchors that they see, by the same rule. ``judged``: what each detector
    saw, in the order of the detectors and of the concepts.
    """

    scores: dict[str, float]
    found: tuple[str, ...]
    anchors: frozenset[str]
    judged: tuple[Judgement, ...] = ()
