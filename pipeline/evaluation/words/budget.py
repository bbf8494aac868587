"""How much a sweep may draw: so many pictures, or what one worker draws in so many hours. Imports nothing."""

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Budget:
    """At most so many *pictures*, or worker-hours; one of the two is given."""

    pictures: int | None = None
    hours: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "5000" as pictures and "2h" or "0.5h" as hours; ``ValueError`` for anything else."""
        number = text.removesuffix("h")
        if text.isdecimal() and int(text) > 0:
            return cls(pictures=int(text))
        if number != text and number.replace(".", "", 1).isdecimal() and 0 < float(number) < math.inf:
            return cls(hours=float(number))
        raise ValueError(f"{text!r} is neither pictures, such as 5000, nor worker-hours, such as 2h")

    def afford(self, seconds_per_image: float) -> int:
        """Return how many pictures that is where one takes a worker *seconds_per_image*."""
        if self.hours is None:
            assert self.pictures is not None
            return self.pictures
        return math.floor(self.hours * 3600 / seconds_per_image)
