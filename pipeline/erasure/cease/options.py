"""The options of ``cease``; what each does is told in ``method.py``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import ConfigError


@dataclass(kw_only=True)
class CEASEOptions:
    """Scores are cosines in 0..1 (see ``gate/text.py``), ``look`` and ``gather`` shares of the steps."""

    RENAMED: ClassVar[Mapping[str, str]] = {"evidence": "attention"}

    gate: float = 0.55  # a prompt with a word of at least this score is concerned
    means: float = 0.85  # from here on a word means the concept, below it only implies it
    context: float = 0.4  # so is one that as a whole comes so near, whatever its words
    attention: float = 1.0  # a picture that hears so much of a concept in the first step is concerned; 1: no listening
    always_on: bool = False  # treat every prompt as concerned, whatever its score
    push: float = 1.0  # how far beyond the alternative to go, where nothing pulls towards an anchor
    look: float = 0.15  # until then only maps are gathered; 0, for models of few steps: the first switches everywhere
    gather: float = 0.6  # maps are gathered until then; later ones only redraw what is already there
    threshold: float = 0.5  # of the map's range, above which a position belongs to the concept
    implied_threshold: float = 0.3  # the same, where words only imply the concept: they look at other things as well

    def __post_init__(self) -> None:
        for name in ("gate", "means", "context", "attention", "look", "gather", "threshold", "implied_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        if not 0 <= self.push < math.inf:  # below 0 it would steer back towards the concept
            raise ConfigError(f"push is {self.push}; expected 0 or more")
