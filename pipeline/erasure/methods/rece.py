"""RECE: UCE, then rounds that find what still evokes the concept and erase that too (Gong et al., ECCV 2024).

After UCE an embedding c' may still make the edited projections W' say what the original ones W said of the concept c.
It has a closed form, eq. 7 of arXiv 2407.12383, over all keys and values of all layers, with ||c'||^2 held down:

    c' = argmin sum ||W' c' - W c||^2 + reg ||c'||^2 = B c,   B = (reg I + sum W'^T W')^-1 sum W'^T W

A round erases every c' towards the anchor as UCE erases c (eq. 3), and keeps what UCE keeps. UCE's edit is W' = W M
with one M for all layers (``uce.py``), so with S = sum W^T W a round needs no layer at all:

    B = (reg I + M^T S M)^-1 M^T S,    M <- M M',    M' = UCE's map for the pairs (B c_i, a_i) and (c_j, c_j)

One step of a recipe does both, UCE with the options of that method and then the rounds. The authors start from a UCE
checkpoint, take all 77 tokens of the bare name, preserve the empty text alone, and choose the round to stop at by a
detector; here the tokens are those of ``targets``, neighbours are kept in every round, the number of rounds is given,
and the pairs (c_i, a_i) take part again with weight ``hold``: without them a round undoes part of UCE. Every round
costs unrelated texts, until the self-check refuses the edit; for the same reason a round erases gently and preserves
much. ``lamb`` and ``round_lamb`` are to be seen as in ``uce.py``. What each of these moved on the diorama is in
``pipeline/evaluation/results/LOG.md``.

The authors' settings: reg 0.1 for 3 rounds (nudity), 0.1 for 2 (unsafe), 0.001 for 1 (styles, difficult objects) or 0.1
for 1 (easy ones); lamb and preserve 0.1 in the rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.erasure.least_squares import Moments, right_solve
from pipeline.erasure.methods.uce import UCE, UCEOptions, text_map
from pipeline.erasure.targets import check_not_negative
from pipeline.errors import ConfigError
from pipeline.models.family import TextProjection


@dataclass(kw_only=True)
class RECEOptions(UCEOptions):
    """UCE's options for the start, and those of the rounds."""

    rounds: int = 1
    reg: float = 0.1
    round_erase: float = 0.05  # the authors': 1
    round_preserve: float = 1.0  # the authors': 0.1
    round_lamb: float = 0.1
    hold: float = 1.0  # weight in a round of (c_i, a_i), which UCE has dealt with already; the authors': 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "rounds", "reg", "round_erase", "round_preserve", "round_lamb", "hold")
        if self.reg == 0 or self.round_lamb == 0:
            raise ConfigError("reg and round_lamb must be above 0 (without them the systems are singular)")


class RECE(UCE):
    """Edits what UCE edits."""

    Options = RECEOptions
    options: RECEOptions

    def map(self, erased: Moments, kept: Moments, projections: Sequence[TextProjection]) -> Tensor:
        options = self.options
        m = super().map(erased, kept, projections)
        s = sum_of_squares([p.weight[:, : p.width] for p in projections])
        for _ in range(options.rounds):
            found = erased.through(adversarial_map(s, m, options.reg, self.label))
            pairs = found * options.round_erase + erased * options.hold + kept * options.round_preserve
            m = m @ text_map(pairs, self.absolute(options.round_lamb, pairs), self.label, "raise round_lamb")
        return m


def sum_of_squares(weights: list[Tensor]) -> Tensor:
    """Return S = sum W^T W over ``(out, D)`` weights: ``(D, D)``, float64."""
    total = torch.zeros(weights[0].shape[1], weights[0].shape[1], dtype=torch.float64, device=weights[0].device)
    for weight in weights:
        w = weight.double()
        total += w.T @ w
    return total


def adversarial_map(s: Tensor, m: Tensor, reg: float, label: str) -> Tensor:
    """Return B ``(D, D)``: B c is what, after the edit M, is nearest to what c was before it."""
    identity = torch.eye(len(s), dtype=s.dtype, device=s.device)
    return right_solve(s @ m, reg * identity + m.T @ s @ m, label, "raise reg").T  # the matrix inverted is symmetric
