"""SLD, Safe Latent Diffusion: guidance away from the concepts, where a prompt leans to them (Schramowski et al., CVPR
2023, arXiv 2211.05105). With s the concepts' words as one prompt, e0 the negative branch and w the guidance:

    eq. 6   phi = min(1, s_S |e(p) - e(s)|),   mu = 0 where e(p) - e(s) >= lambda, else phi
    eq. 4   nu  = mu (e(s) - e0)
    eq. 7   nu  = nu + s_m nu_m                        nu_m: momentum, 0 before the first step
    eq. 8   nu_m = beta_m nu_m + (1 - beta_m) nu       also during the warmup
    eq. 3   e   = e0 + w (e(p) - e0 - nu)              nu only from step delta on

all per element. It acts on every sample, and costs one forward more: 1.5 of the time. The presets are the paper's, as
diffusers ships them, meant for 50 steps: ``warmup`` (delta) counts steps, and one that a run never leaves is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.config.sections.generation import GenerationConfig
from pipeline.erasure.method import Branch, Method, Prediction, Prompts, Sampling, Steering
from pipeline.erasure.tensors import wide
from pipeline.erasure.tokens import joined_words
from pipeline.errors import ConfigError, nearest
from pipeline.models.load import Model

# delta, s_S, lambda, s_m, beta_m
PRESETS: dict[str, tuple[int, float, float, float, float]] = {
    "weak": (15, 20.0, 0.0, 0.0, 0.0),
    "medium": (10, 1000.0, 0.01, 0.3, 0.4),
    "strong": (7, 2000.0, 0.025, 0.5, 0.7),
    "max": (0, 5000.0, 1.0, 0.5, 0.7),
}


@dataclass(kw_only=True)
class SLDOptions:
    """A preset, and what to change of it."""

    preset: str = "medium"
    warmup: int | None = None  # delta, in steps
    scale: float | None = None  # s_S
    threshold: float | None = None  # lambda
    momentum_scale: float | None = None  # s_m
    momentum_beta: float | None = None  # beta_m

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(
                f"preset is {self.preset!r}{nearest(self.preset, PRESETS)}; expected one of {', '.join(PRESETS)}"
            )
        for name, low, high in (
            ("warmup", 0, None), ("scale", 1, None), ("threshold", 0, None), ("momentum_scale", 0, 1),
            ("momentum_beta", 0, 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and (value < low or (high is not None and value > high)):
                expected = f"at least {low}" if high is None else f"{low} to {high}"
                raise ConfigError(f"{name} is {value:g}; expected {expected}")

    @property
    def values(self) -> tuple[int, float, float, float, float]:
        """delta, s_S, lambda, s_m and beta_m."""
        warmup, scale, threshold, momentum_scale, momentum_beta = PRESETS[self.preset]
        return (
            warmup if self.warmup is None else self.warmup,
            scale if self.scale is None else self.scale,
            threshold if self.threshold is None else self.threshold,
            momentum_scale if self.momentum_scale is None else self.momentum_scale,
            momentum_beta if self.momentum_beta is None else self.momentum_beta,
        )


class SLD(Method):
    """Steers the guided prediction of every sample."""

    Options = SLDOptions
    requires = frozenset({"guidance"})
    chunks = True
    options: SLDOptions

    def __init__(self, model: Model, concepts: Sequence[Concept], options: SLDOptions, *, label: str):
        super().__init__(model, concepts, options, label=label)
        self.concept = model.family.encode([joined_words(model.family.streams[0], concepts, label)])

    @classmethod
    def check_sampling(cls, options: Any, generation: GenerationConfig) -> None:
        super().check_sampling(options, generation)
        warmup = options.values[0]
        if warmup >= generation.steps:
            raise ConfigError(
                f"a warmup of {warmup} steps leaves none of the {generation.steps}; set options.warmup lower"
            )

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering:
        rows = torch.arange(len(prompts), device=self.model.device)
        return SLDSteering(self, Branch(rows, self.concept.rows(torch.zeros_like(rows))), sampling)


class SLDSteering(Steering):
    """``gates`` is the mean of mu over elements and steps: 0 where no element of a sample leaned to the concepts."""

    def __init__(self, method: SLD, branch: Branch, sampling: Sampling):
        super().__init__()
        self.branch = branch
        self.options = method.options
        self.guidance = sampling.guidance
        self.steps = sampling.steps
        self.momentum: Tensor | None = None
        self.gate = torch.zeros(len(branch.rows), device=branch.rows.device)
        self.gates = {f"{method.label}:all": self.gate}

    def guide(self, prediction: Prediction) -> Tensor:
        assert prediction.negative is not None, "refused by check_sampling"
        assert prediction.branch is not None
        delta, s_S, threshold, s_m, beta_m = self.options.values
        e_p, e_0, e_s = wide(prediction.positive), wide(prediction.negative), wide(prediction.branch)
        phi = ((e_p - e_s).abs() * s_S).clamp(max=1)
        mu = torch.where(e_p - e_s >= threshold, torch.zeros_like(phi), phi)  # (B, C, h, w)
        momentum = torch.zeros_like(e_p) if self.momentum is None else self.momentum
        nu = mu * (e_s - e_0) + s_m * momentum
        self.momentum = beta_m * momentum + (1 - beta_m) * nu
        self.gate += mu.mean((1, 2, 3)) / self.steps
        guided = prediction.guided
        return (wide(guided) - self.guidance * nu).to(guided.dtype) if prediction.step >= delta else guided
