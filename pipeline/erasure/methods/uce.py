"""UCE: cross-attention keys and values rewritten in closed form, all concepts jointly (Gandikota et al., WACV 2024).

For every text projection W (out, in), eq. 7 of arXiv 2308.14761:

    W' = (lamb W + e sum_i v*_i c_i^T + p sum_j W c_j c_j^T) (lamb I + e sum_i c_i c_i^T + p sum_j c_j c_j^T)^-1

with v*_i = W a_i. Here c_i are token embeddings of prompts that name a concept, a_i those of the same prompts with the
anchor in its place, and c_j those of prompts to preserve; ``targets`` says which, and why more than the authors take.
Since v* is linear in W, the edit is one map of text embeddings, the same for every layer:

    W' = W M,   M = I + (A - C) (lamb I + C)^-1,   A = sum w a c^T, C = sum w c c^T over all pairs, a_j = c_j.

``lamb`` holds W where no pair says anything, and has to be seen beside C, a sum over all tokens: hundreds of them here,
where the authors, whose default it is, take one a concept; so the default also moves what no list names, and a higher
``lamb`` trades little erasure for much of that (``pipeline/evaluation/results/LOG.md`` has a table). The self-check's
unrelated texts hold few objects that the diorama knows, and so see little of it. ``lamb`` is in units of a squared
embedding, and how long those are is up to the text encoder. ``relative: true`` gives it in units of the mean squared
length of the pairs' tokens, so that it says the same on every model: a direction along which all pairs together have
``lamb`` tokens' worth is moved halfway. On the diorama lamb 1000 is 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from pipeline.erasure.least_squares import Moments, right_solve
from pipeline.erasure.method import Method
from pipeline.erasure.targets import TargetOptions, TokenTargets, check_not_negative, found_projections
from pipeline.errors import ConfigError
from pipeline.models.family import TextProjection


@dataclass(kw_only=True)
class UCEOptions(TargetOptions):
    """Weights of eq. 7 per token; the official defaults are erase 1, preserve 1, lamb 0.5."""

    erase: float = 1.0
    preserve: float = 1.0
    lamb: float = 0.5
    relative: bool = False  # lamb is in units of the mean squared length of a token

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "erase", "preserve", "lamb")
        if self.erase == 0 or self.lamb == 0:
            raise ConfigError("erase and lamb must be above 0 (without lamb the system is singular)")


class UCE(Method):
    """Edits every layer that text enters: keys and values of cross-attention, or the one before joint attention; and,
    where a prompt has one vector besides, the projection of that, with pairs of its own."""

    Options = UCEOptions
    requires = frozenset({"text_projections"})
    separable = True
    stronger, weaker = "lower lamb", "raise lamb"
    options: UCEOptions

    @classmethod
    def edits_text(cls, options: Any, label: str) -> bool:
        return False

    def edit(self) -> dict[str, Tensor]:
        tokens = self.projections()
        edited = mapped(tokens, self.map(*self.moments(), tokens))
        pooled = [p for p in self.model.family.text_projections() if p.kind == "pooled"]
        if pooled:
            targets = TokenTargets(self.model.family, self.concepts, self.options, label=self.label)
            erased, kept = Moments.of(targets.pooled_erased()), Moments.of(targets.pooled_kept())
            edited |= mapped(pooled, self.map(erased, kept, pooled))
        return edited

    def moments(self) -> tuple[Moments, Moments]:
        """Return what is known of the token pairs of all concepts, and of all that is preserved, over all streams."""
        family = self.model.family
        pairs = [
            TokenTargets(family, self.concepts, self.options, label=self.label, stream=stream)
            for stream in family.streams
        ]
        return (
            Moments.of(chain.from_iterable(p.erased() for p in pairs)),
            Moments.of(chain.from_iterable(p.kept() for p in pairs)),
        )

    def projections(self) -> list[TextProjection]:
        """Return the layers that tokens enter. Raises ``ConfigError`` where there is none."""
        return found_projections(self.model.family, ("key", "value", "context"), self.label)

    def map(self, erased: Moments, kept: Moments, projections: Sequence[TextProjection]) -> Tensor:
        """Return M ``(D, D)``, float64, for *projections*, given what is known of the pairs of all concepts, and of all
        that is preserved."""
        pairs = erased * self.options.erase + kept * self.options.preserve
        return text_map(pairs, self.absolute(self.options.lamb, pairs), self.label)

    def absolute(self, lamb: float, pairs: Moments) -> float:
        """Return what *lamb* is in units of a squared embedding."""
        return lamb * pairs.squared_length if self.options.relative else lamb


def mapped(projections: Sequence[TextProjection], m: Tensor) -> dict[str, Tensor]:
    """Return W M for every projection W, of its dtype; columns that text does not meet stay."""
    edited = {}
    for p in projections:
        text, rest = p.weight[:, : p.width], p.weight[:, p.width :]
        edited[p.name] = torch.cat([(text.double() @ m).to(p.weight.dtype), rest], dim=1)
    return edited


def text_map(pairs: Moments, lamb: float, label: str, remedy: str = "raise lamb") -> Tensor:
    """Return M ``(D, D)``, float64, of the pairs, already weighted.

    Raises ``ConfigError``, with the *remedy*, where the system is singular.
    """
    identity = torch.eye(len(pairs.gram), dtype=pairs.gram.dtype, device=pairs.gram.device)
    change = right_solve(pairs.cross - pairs.gram, lamb * identity + pairs.gram, label, remedy)
    return identity + change
