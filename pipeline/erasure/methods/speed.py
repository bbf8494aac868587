"""SPEED: keys and values edited only where what is retained does not notice (Li et al., ICLR 2026, arXiv 2503.07392).

With T = mean c c^T and A = mean a c^T over the tokens c of a concept and a of its anchor, and R = mean c0 c0^T over
tokens c0 to retain, W' = W + D where D is the least change that, acting in the null space of R alone (P projects onto
it) and leaving the empty text K exactly as it is (D K = 0, "invariant equality constraints"), takes c to a:

    D = W (A - T) P (I - M K (K^T P M K + lamb I)^-1 K^T P) M,     M = (T P + retain_scale I)^-1

    P = U U^T, U the eigenvectors of R with eigenvalues below ``threshold``

The more is retained, the less null space is left. Two things refine R, layer by layer:
- influence-based prior filtering: only the c0 that an edit without retention, D_e = W (A - T)(I + T)^-1, would move
  more than the mean, ||D_e c0|| > mean, take part;
- directed prior augmentation: each of these is joined by ``augment`` copies c0 + z v, z ~ N(0, 1), with v the direction
  in which W is weakest, so that they mean nearly the same; copies are filtered by their own mean in the same way.

K is the start token and three centroids of the rest of the empty text. The authors edit values alone (``params: V``),
take a concept's last token (``tokens: subject``), and thresholds of 0.1 for a few concepts and 1e-4 for a hundred.

What differs here: the tokens (``targets``); keys are edited too, without which less is erased; a mean over pairs is
weighted as they are; the centroids are found from a fixed start; copies are drawn from a fixed seed, and filtered over
all of R instead of 128 at a time; ``filter`` and ``augment`` are independent, while the authors' code filters only
where it augments (``aug_num`` 0 retains every text, whatever is asked for). Embeddings are measured in units of their
own root mean square (``relative``), so that ``threshold`` and ``retain_scale`` mean the same on every text encoder.

T is a mean over all concepts, so each of n counts 1/n against ``retain_scale``: lower it with n. For fifteen objects of
the diorama ``retain_scale: 0.1, filter: false, augment: 0`` does what the defaults do not
(``configs/evaluation/fifteen.yaml``; figures in ``pipeline/evaluation/README.md``).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.erasure.least_squares import Moments, Targets, right_solve
from pipeline.erasure.method import Method
from pipeline.erasure.targets import TargetOptions, TokenTargets, check_not_negative, found_projections
from pipeline.errors import ConfigError, nearest

KINDS = {"V": ("value",), "K": ("key",), "KV": ("key", "value")}
MOST_PADS = 4  # of a retained text's padding, evenly spaced
CENTROIDS = 3
MOST = 1e30  # of retain_scale: the change is exactly 0 there, and beyond 1e306 the system is no longer a number


@dataclass(kw_only=True)
class SPEEDOptions(TargetOptions):
    """The authors' defaults, besides the tokens."""

    params: str = "KV"  # V, K or KV: which projections are edited; the authors': V
    threshold: float = 0.1  # eigenvalues of R below it are its null space
    retain_scale: float = 1.0
    lamb: float = 0.0  # softens the equality constraints
    filter: bool = True
    augment: int = 10
    relative: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "threshold", "retain_scale", "lamb", "augment")
        if self.params not in KINDS:
            raise ConfigError(f"params is {self.params!r}{nearest(self.params, KINDS)}; expected one of V, K, KV")
        if self.threshold == 0 or self.retain_scale == 0:
            raise ConfigError("threshold and retain_scale must be above 0 (without them the system is singular)")
        if self.retain_scale > MOST:
            raise ConfigError(f"retain_scale is {self.retain_scale:g}; expected at most {MOST:g}")


class SPEED(Method):
    """Edits keys and values, or one of them, of all cross-attention layers."""

    Options = SPEEDOptions
    requires = frozenset({"text_projections", "cross_attention"})  # its choice is between keys and values
    separable = True
    stronger, weaker = "lower retain_scale or raise threshold", "raise retain_scale, lower threshold"
    options: SPEEDOptions

    @classmethod
    def edits_text(cls, options: Any, label: str) -> bool:
        return False

    def edit(self) -> dict[str, Tensor]:
        options = self.options
        targets = TokenTargets(self.model.family, self.concepts, options, label=self.label)
        erased, kept = Moments.of(targets.erased()), list(targets.kept(empty=False, most_pads=MOST_PADS))
        if not kept:
            raise ConfigError(f"{self.label}: nothing is retained; list neighbours under preserve, or texts under keep")
        retained = Targets.cat(kept)
        constraints = invariants(self.model.family.encode([""]).embeds[0].double())
        # One number makes all embeddings relative: moments scale with its square.
        unit = retained.inputs.square().mean().sqrt().item() if options.relative else 1.0
        erased = erased * (1 / (erased.weight * unit**2))
        retained = Targets(retained.inputs / unit, retained.targets / unit, retained.weights)
        shape = (len(retained.inputs), options.augment)
        z = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        edited = {}
        for p in found_projections(self.model.family, KINDS[options.params], self.label):
            w = p.weight.double()
            r = self._retained(w, erased, retained, z.to(w.device))
            edited[p.name] = (w + self._change(w, erased, r, constraints / unit)).to(p.weight.dtype)
        return edited

    def _retained(self, w: Tensor, erased: Moments, retained: Targets, z: Tensor) -> Tensor:
        """Return R ``(D, D)`` for the projection *w*, filtered and augmented."""
        c0, weights = retained.inputs, retained.weights  # (n, D), (n,)
        identity = torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
        moved = right_solve(w @ (erased.cross - erased.gram), identity + erased.gram, self.label, "list other words")
        if self.options.filter:
            influence = (c0 @ moved.T).norm(dim=1)
            if (influence > influence.mean()).any():  # all alike: nothing to tell apart
                c0, weights, z = (x[influence > influence.mean()] for x in (c0, weights, z))
        return augmented(c0, weights, z, torch.linalg.svd(w, full_matrices=False).Vh[-1], moved)

    def _change(self, w: Tensor, erased: Moments, r: Tensor, k: Tensor) -> Tensor:
        """Return D ``(out, D)`` for the projection *w*, given R ``(D, D)`` and the constraints K ``(k, D)``."""
        options = self.options
        values, vectors = torch.linalg.eigh(r)
        u = vectors[:, values < options.threshold]  # (D, dim of the null space)
        if u.shape[1] == 0:
            raise ConfigError(
                f"{self.label}: what is retained leaves no direction free (smallest eigenvalue {values[0]:.2g}, "
                f"threshold {options.threshold:g}); raise threshold or retain less"
            )
        p = u @ u.T
        identity = torch.eye(len(p), dtype=p.dtype, device=p.device)
        m = right_solve(identity, erased.gram @ p + options.retain_scale * identity, self.label, "raise retain_scale")
        free = w @ (erased.cross - erased.gram) @ p  # (out, D)
        held = k @ p @ m @ k.T + options.lamb * torch.eye(len(k), dtype=p.dtype, device=p.device)
        change: Tensor = (free - right_solve(free @ m @ k.T, held, self.label, "raise lamb") @ k @ p) @ m
        return change


def augmented(c0: Tensor, weights: Tensor, z: Tensor, v: Tensor, moved: Tensor) -> Tensor:
    """Return R of *c0* ``(n, D)`` and of those copies c0 + z v that *moved* ``(out, D)`` moves more than their mean.

    ``z`` is ``(n, copies)``. The copies are never made: their norms and sum of outer products follow from c0's.
    """
    gram, total = c0.T @ (c0 * weights[:, None]), weights.sum()
    if z.shape[1]:
        a, b = c0 @ moved.T, moved @ v  # ||D(c0 + z v)||^2 = |a|^2 + 2 z a.b + z^2 |b|^2
        norms = (a.square().sum(1)[:, None] + 2 * z * (a @ b)[:, None] + z.square() * b.square().sum()).clamp(min=0)
        norms = norms.sqrt()
        taken = (norms > norms.mean()) * weights[:, None]  # (n, copies), weighted as what they are copies of
        shift = c0.T @ (taken * z).sum(1)
        gram = gram + c0.T @ (c0 * taken.sum(1)[:, None]) + torch.outer(shift, v) + torch.outer(v, shift)
        gram = gram + (taken * z.square()).sum() * torch.outer(v, v)
        total = total + taken.sum()
    return gram / total


def invariants(empty: Tensor) -> Tensor:
    """Return K ``(1 + CENTROIDS, D)`` of the empty text's embeddings ``(T, D)``: the first, and k-means of the rest."""
    rest = empty[1:]
    centres = rest[[round(i * (len(rest) - 1) / (CENTROIDS - 1)) for i in range(CENTROIDS)]]  # apart in the sequence
    for _ in range(100):
        nearest_centre = torch.cdist(rest, centres).argmin(1)
        moved = torch.stack(
            [rest[nearest_centre == i].mean(0) if (nearest_centre == i).any() else c for i, c in enumerate(centres)]
        )
        if torch.equal(moved, centres):
            break
        centres = moved
    return torch.cat([empty[:1], centres])
