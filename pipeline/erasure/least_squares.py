"""Weighted least squares between token embeddings, by their moments: what the closed-form edits solve.

A solve needs its targets only as sums of outer products (``Moments``), so memory does not grow with the concepts. Knows
nothing of concepts and texts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ConfigError

WORST_CONDITION = 1e14  # in float64 two digits are then left


@dataclass(frozen=True)
class Targets:
    """Weighted token embeddings ``inputs`` (n, D), what they are to count as (n, D), and ``weights`` (n,); float64."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor

    @classmethod
    def cat(cls, parts: Iterable["Targets"]) -> "Targets":
        """Return all rows of *parts*, one after another."""
        parts = list(parts)
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in ("inputs", "targets", "weights")))


@dataclass(frozen=True)
class Moments:
    """All a solve knows of its pairs: ``gram`` = sum w c c^T, ``cross`` = sum w a c^T (D, D) and ``weight`` = sum w."""

    gram: Tensor
    cross: Tensor
    weight: float

    @classmethod
    def of(cls, parts: Iterable[Targets]) -> "Moments":
        gram, cross, weight = None, None, 0.0
        for pairs in parts:
            weighted = pairs.inputs * pairs.weights[:, None]
            g, x = pairs.inputs.T @ weighted, pairs.targets.T @ weighted
            gram, cross = (g, x) if gram is None or cross is None else (gram + g, cross + x)
            weight += pairs.weights.sum().item()
        assert gram is not None
        assert cross is not None
        return cls(gram, cross, weight)

    @property
    def squared_length(self) -> float:
        """The mean over the inputs."""
        return self.gram.trace().item() / self.weight

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.gram + other.gram, self.cross + other.cross, self.weight + other.weight)

    def __mul__(self, factor: float) -> "Moments":
        return Moments(self.gram * factor, self.cross * factor, self.weight * factor)

    def through(self, b: Tensor) -> "Moments":
        """Return the moments of the pairs (B c, a), given *b* ``(D, D)``."""
        return Moments(b @ self.gram @ b.T, self.cross @ b.T, self.weight)


def right_solve(b: Tensor, a: Tensor, label: str, remedy: str) -> Tensor:
    """Return B A^-1, float64. Raises ``ConfigError``, with the *remedy*, where A is singular."""
    if not torch.linalg.cond(a, 1) < WORST_CONDITION:  # not, so that nan is refused too
        raise ConfigError(f"{label}: the system is singular; {remedy}")
    solved: Tensor = torch.linalg.solve(a, b, left=False)
    return solved
