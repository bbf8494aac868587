"""The options of ``cease``; what each does is told in ``method.py``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pipeline.erasure.gate.calibration import check_false_alarms
from pipeline.errors import ConfigError


@dataclass(kw_only=True)
class CEASEOptions:
    """``attention`` is a cosine in 0..1, ``look`` and ``gather`` are shares of the steps."""

    RENAMED: ClassVar[Mapping[str, str]] = {"evidence": "attention", "gate": "false_alarms"}

    unlisted: bool = True  # a prompt with a word that comes near a concept is concerned, not only with a listed one
    context: bool = True  # so is one that as a whole comes near, whatever its words
    false_alarms: float | None = None  # of everyday words, and prompts, come near by chance; none: words.false_alarms
    attention: float = 1.0  # a picture that hears so much of a concept in the first step is concerned; 1: no listening
    always_on: bool = False  # treat every prompt as concerned, whatever its score
    push: float = 1.0  # how far beyond the alternative to go, where nothing pulls towards an anchor
    look: float = 0.15  # until then only maps are gathered; 0, for models of few steps: the first switches everywhere
    gather: float = 0.4  # maps are gathered until then; later ones only redraw what is already there
    threshold: float = 0.5  # of the map's range, above which a position belongs to the concept
    implied_threshold: float = 0.3  # the same, where words only imply the concept: they look at other things as well

    def __post_init__(self) -> None:
        for name in ("attention", "look", "gather", "threshold", "implied_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        check_false_alarms(self.false_alarms)
        if not 0 <= self.push < math.inf:  # below 0 it would steer back towards the concept
            raise ConfigError(f"push is {self.push}; expected 0 or more")
