"""The options of ``esd``; what each does is told in ``method.py``."""

from dataclasses import dataclass, field

from pipeline.erasure.templates import KEEP, check_template
from pipeline.errors import ConfigError, nearest

VARIANTS = ("x", "x-strict", "u", "all")
RANGE = 1e36  # Adam multiplies by 10 in its first step; float32 ends at 3.4e38


@dataclass(kw_only=True)
class ESDOptions:
    """The authors' defaults are those for Stable Diffusion 1.4, where a batch is one picture and ``reuse`` 1."""

    variant: str = "x"
    iterations: int = 200
    lr: float = 5e-5
    batch_size: int = 1
    negative_guidance: float = 2.0  # eta above
    steps: int = 50  # of the sampling that x_t is taken from
    guidance: float = 3.0  # in that sampling
    preserve: float = 1.0  # weight of prompts that are to stay as they are; 0 leaves them out
    reuse: int = 1  # iterations that take their x_t from one sampling, each at a step of its own
    size: list[int] = field(default_factory=list)  # [width, height] in pixels; default: the model's own
    templates: list[str] = field(default_factory=lambda: ["{}", "a photo of a {}"])  # prompts of a concept
    keep: list[str] = field(default_factory=lambda: list(KEEP))  # texts preserved besides the concepts' neighbours
    seed: int = 0

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ConfigError(
                f"variant {self.variant!r} is unknown{nearest(self.variant, VARIANTS)}; "
                f"expected one of {', '.join(VARIANTS)}"
            )
        for name in ("iterations", "batch_size", "steps", "reuse"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        for name in ("lr", "negative_guidance"):
            if not 0 < getattr(self, name) < RANGE:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0, and within float32's range")
        if self.preserve < 0:
            raise ConfigError(f"preserve is {self.preserve}; expected 0 or more")
        if not 1 <= self.guidance <= 1000:
            raise ConfigError(f"guidance is {self.guidance:g}; expected 1 to 1000")
        if not -(2**31) <= self.seed < 2**31:
            raise ConfigError(f"seed is {self.seed}; expected a number of 32 bits")
        if self.size and len(self.size) != 2:
            raise ConfigError(f"size is {self.size}; expected [width, height] in pixels")
        if not self.templates:
            raise ConfigError("templates is empty; expected at least one, such as 'a photo of a {}'")
        for template in self.templates:
            check_template(template)
