"""Who looks at pictures, and what becomes of them: the section ``audit`` of a config."""

# ruff: noqa: RUF009 (identity() and operational() are dataclasses.field with a class)

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from pipeline.config.sections.declare import identity


class Policy(StrEnum):
    """What becomes of a picture in which the detector sees an erased concept."""

    keep = "keep"
    drop = "drop"
    quarantine = "quarantine"
    regenerate = "regenerate"


class CaptionUnread(StrEnum):
    """What becomes, in the caption, of what the text encoder did not read of a long prompt."""

    drop = "drop"  # the caption ends where the reading ended
    keep = "keep"


class CaptionPolicy(StrEnum):
    """What becomes of an erased concept's words in the caption that may be trained on."""

    keep = "keep"  # the prompt as it was asked (and read: `caption_unread`)
    drop = "drop"  # erased noun phrases removed, with what only hung on them
    anchor = "anchor"  # replaced by the anchor where the detector sees it in the picture, else removed


class Role(StrEnum):
    """What a detector's word counts for."""

    judge = "judge"  # it decides
    witness = "witness"  # it is recorded beside those that do


class Combine(StrEnum):
    """When a concept counts as seen that several judges look for; the score that is recorded for them."""

    any = "any"  # one judge sees it; their highest score
    all = "all"  # all see it; their lowest
    mean = "mean"  # the mean of their scores is at or over that of their thresholds; that mean


@dataclass(kw_only=True)
class DetectorConfig:
    """One detector of the audit."""

    detector: str = identity()  # a registered name or "module:Class"
    options: dict[str, Any] = identity(factory=dict)
    concepts: list[str] = identity(factory=list)  # by name; none: all of the list that it knows
    thresholds: dict[str, float] = identity(factory=dict)  # per concept; default: the calibration's, or its own
    role: Role = identity(Role.judge)
    # What `lacuna calibrate` wrote: thresholds, and how often they err. Its content is in the identity, not its place.
    calibration: str | None = identity(None)


@dataclass(kw_only=True)
class QualityConfig:
    """One measure of the audit's quality columns; by its name alone where it has no options."""

    BY_NAME: ClassVar[str] = "measure"  # the field that a text in place of a mapping gives

    measure: str = identity()  # a registered name or "module:Class"
    options: dict[str, Any] = identity(factory=dict)


@dataclass(kw_only=True)
class AuditConfig:
    detectors: list[DetectorConfig] = identity(factory=list)  # none: no audit
    combine: Combine = identity(Combine.any)  # of judges of one concept
    unjudged: list[str] = identity(factory=list)  # concepts that need no judge
    policy: Policy = identity(Policy.quarantine)
    attempts: int = identity(3)  # further seeds under `policy: regenerate`
    captions: CaptionPolicy = identity(CaptionPolicy.anchor)  # without a detector: drop
    # What stands where a caption has lost its subject ("a picture in a room"); null: such a sample is dropped, and the
    # reason is "no caption".
    caption_subject: str | None = identity("a picture")
    caption_unread: CaptionUnread = identity(CaptionUnread.drop)
    quality: list[QualityConfig] = identity(factory=list, silent=True)  # further columns of the manifest; none decides
