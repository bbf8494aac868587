"""AdaVD: from every token's value, in every cross-attention layer, what it shares with the concept is taken (Wang et
al., CVPR 2025, arXiv 2412.06143, "adaptive value decomposer"). Values depend on the text alone, so this is done once
per batch and costs nothing while sampling.

Let t_i be the value of concept i (its last token), heads side by side, and v that of a token of the prompt. The part of
v in the span of all t_i is sum_i c_i t_i with coefficients c = G^-1 b, G_ij = <t_i, t_j>, b_i = <t_i, v>: the paper's
Gram-Schmidt sum, without its order. Each part is taken as far as the token means the concept,

    v' = v - sum_i S(cos(t_i, v)) c_i t_i,    S(z) = c / (1 + exp(-a (z - b)))      the shift factor

and never from the start token. Of a concept's words each token is compared with the one most like it. Options:

- ``branches: both`` is what the authors' code does: t and v are the values of the negative and the positive branch side
  by side, the concept's negative half being the prompt's own, and both halves are changed. As the negative halves are
  equal, every token is at least half like the concept. ``branches: positive`` is the formula of the paper's text;
  without guidance there is no other.
- ``shift: false`` is S = 1, the authors' default on the command line.
- ``projection: gated`` is the projection of GenErase (CVPR 2026; from its description, as no code is public): with P
  the projection onto the values of what is to be preserved and u the unit vector of (1 - P) t, a token is changed where
  r = |<u, (1 - P) v>| / ||(1 - P) v|| reaches ``tau``, and then v' = v - <u, v> u + ``replace`` <u, v> a, a being the
  unit vector of what the anchor's value has beyond P and u. A prompt in which no token reaches ``tau`` is not touched.

The defaults are the authors', set on Stable Diffusion. On the diorama, whose unlisted synonyms have cosines on both
sides of their b, the shift factor with b 0.6 and c 3 was best (``pipeline/evaluation/results/LOG.md``).

The Gram matrices are of every token's own words, so with all concepts in them time and memory would grow with the
square of their number. Of more than ``MOST`` concepts a token is compared with all and decomposed among the ``MOST`` it
is most like, where the authors' sum has all; those beyond have next to no shift factor. Growth is then linear
(``jobs/bench_concepts.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.concepts.concept import Concept
from pipeline.erasure.method import Method, Prompts, Sampling, Steering
from pipeline.erasure.methods.safree import orthonormal
from pipeline.erasure.tensors import wide
from pipeline.erasure.tokens import end_of_text
from pipeline.errors import ConfigError, nearest
from pipeline.models.layers import Layer, merge_heads, split_heads
from pipeline.models.load import Model
from pipeline.models.reading import RowKind
from pipeline.models.transfer import to_device

PROJECTIONS = ("shifted", "gated")
BRANCHES = ("both", "positive")
MOST = 16  # concepts in a token's Gram matrix
RIDGE = 8.0  # roundings of the Gram matrix's mean diagonal: concepts with nearly the same value share what is taken


@dataclass(kw_only=True)
class AdaVDOptions:
    projection: str = "shifted"
    branches: str = "both"
    shift: bool = True
    a: float = 100.0
    b: float = 0.93
    c: float = 2.0
    tau: float = 0.1  # of the gated projection, 0.05 for explicit content
    replace: float = 0.5  # beta of the gated projection

    def __post_init__(self) -> None:
        for name, choices in (("projection", PROJECTIONS), ("branches", BRANCHES)):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"{name} is {value!r}{nearest(value, choices)}; expected {' or '.join(choices)}")
        for name in ("b", "tau"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name):g}; expected 0 to 1, as it is compared with a cosine"
                )
        for name in ("a", "c"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name):g}; expected more than 0")
        if self.replace < 0:
            raise ConfigError(f"replace is {self.replace:g}; expected 0 or more")


@dataclass(frozen=True)
class Targets:
    """What one layer makes of the words: their values ``(W, C)`` and ``gram (W, W)``.

    ``words (concepts, M)`` are the places in W of each concept's words, the first told again where there are fewer than
    M. For the gated projection also a basis ``kept (r, C)`` of what is preserved, and for each word the unit vector
    ``stand_in (W, C)`` of its concept's anchor, or zeros.
    """

    values: Tensor
    gram: Tensor
    words: Tensor
    kept: Tensor
    stand_in: Tensor


class AdaVD(Method):
    """Steers the values of cross-attention."""

    Options = AdaVDOptions
    requires = frozenset({"cross_attention"})
    chunks = True
    options: AdaVDOptions

    def __init__(self, model: Model, concepts: Sequence[Concept], options: AdaVDOptions, *, label: str):
        super().__init__(model, concepts, options, label=label)
        words = [word for concept in concepts for word in concept.words]
        most, places, first = max((len(concept.words) for concept in concepts), default=0), [], 0
        for concept in concepts:
            own = range(first, first + len(concept.words))
            places.append([*own, *[first] * (most - len(own))])
            first = own.stop
        self.places = torch.tensor(places, device=model.device)  # (concepts, M)
        self.words = self._last_tokens(words)  # (W, D)
        self.kept = self._last_tokens(sorted({w for concept in concepts for w in concept.preserve} - set(words)))
        self.anchors = self._last_tokens([concept.anchor for concept in concepts for _ in concept.words])
        self._targets: dict[int, Targets] = {}

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering:
        words = (prompts.reader(self.model.family).kinds("") != RowKind.start).nonzero()[:, 0]
        return AdaVDSteering(self, len(prompts), words, guided=prompts.negative is not None)

    def targets(self, layer: Layer) -> Targets:
        """Return what *layer* makes of the words, the same for every batch."""
        if layer.index not in self._targets:
            values, kept, anchors = (wide(layer.module.to_v(x)) for x in (self.words, self.kept, self.anchors))
            basis = orthonormal(kept).to(kept.dtype)
            if self.options.projection == "gated":
                values = normalize(beyond(values, basis), dim=-1)
                anchors = beyond(anchors, basis)
                anchors = normalize(anchors - (anchors * values).sum(-1, keepdim=True) * values, dim=-1)
            self._targets[layer.index] = Targets(values, values @ values.T, self.places, basis, anchors)
        return self._targets[layer.index]

    def _last_tokens(self, words: Sequence[str]) -> Tensor:
        """Return the embedding of the last token of each word ``(n, D)``; zeros for an empty word."""
        family = self.model.family
        rows = [family.encode([""]).embeds[0, :1] * 0]
        for word in words:
            embeds, end = family.encode([word]).embeds[0], end_of_text(family.streams[0], word)
            rows.append(embeds[end - 1 : end] if word else rows[0])
        return torch.cat(rows[1:]) if words else rows[0][:0]


class AdaVDSteering(Steering):
    """``gates`` are, per concept, the greatest cosine (gated: r) of any token of a sample, averaged over layers."""

    def __init__(self, method: AdaVD, samples: int, words: Tensor, *, guided: bool):
        super().__init__()
        self.words = to_device(words, method.model.device)  # the places of all tokens but the start
        self.method = method
        self.samples = samples
        self.guided = guided
        self.scores: dict[int, Tensor] = {}  # by layer, (B, concepts)
        gates = torch.zeros(len(method.concepts), samples, device=method.model.device)
        self.gates = {f"{method.label}:{c.name}": gate for c, gate in zip(method.concepts, gates, strict=True)}

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        options, targets = self.method.options, self.method.targets(layer)
        merged = wide(merge_heads(value))  # (R, T, C)
        positive = merged[-self.samples :]
        change = torch.zeros_like(merged)
        if options.projection == "gated":
            change[-self.samples :], scores = gated(positive, targets, options)
        elif options.branches == "both" and self.guided:
            negative = merged[: self.samples]
            change[-self.samples :], change[: self.samples], scores = shifted(positive, negative, targets, options)
        else:
            change[-self.samples :], _, scores = shifted(positive, torch.zeros_like(positive), targets, options)
        change = torch.zeros_like(change).index_copy_(1, self.words, change[:, self.words])
        self.scores[layer.index] = scores[:, self.words].amax(1)
        means = torch.stack(list(self.scores.values())).mean(0)
        for i, gate in enumerate(self.gates.values()):
            gate.copy_(means[:, i])
        return key, value - split_heads(change.to(value.dtype), layer.heads)


def shifted(
    positive: Tensor, negative: Tensor, targets: Targets, options: AdaVDOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is to be taken from the values ``(B, T, C)`` of both branches, and the cosines ``(B, T, concepts)``.

    ``negative`` is zero where the positive branch stands alone.
    """
    shared = negative.square().sum(-1, keepdim=True)  # (B, T, 1): the negative halves of t and v are the same
    inner = shared + positive @ targets.values.T  # (B, T, W)
    lengths = (shared + positive.square().sum(-1, keepdim=True)) * (shared + targets.gram.diagonal())
    cosines = inner / lengths.sqrt().clamp_min(1e-12)
    nearest_word, cosine = most_alike(cosines, targets.words)
    b, z = inner.gather(-1, nearest_word), cosines.gather(-1, nearest_word)
    gram = targets.gram[nearest_word[..., :, None], nearest_word[..., None, :]] + shared[..., None]
    taken = solve(gram, b)
    if options.shift:
        taken = taken * options.c / (1 + torch.exp(-options.a * (z - options.b)))
    by_word = torch.zeros_like(inner).scatter_(-1, nearest_word, taken)  # concepts have no word in common
    return by_word @ targets.values, taken.sum(-1, keepdim=True) * negative, cosine


def gated(positive: Tensor, targets: Targets, options: AdaVDOptions) -> tuple[Tensor, Tensor]:
    """Return what is to be taken from the values ``(B, T, C)``, zero below ``tau``, and r ``(B, T, concepts)``."""
    free = beyond(positive, targets.kept)
    inner = free @ targets.values.T  # (B, T, W)
    ratios = inner.abs() / free.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    nearest_word, ratio = most_alike(ratios, targets.words)
    b, r = inner.gather(-1, nearest_word), ratios.gather(-1, nearest_word)
    on = r >= options.tau
    gram = targets.gram[nearest_word[..., :, None], nearest_word[..., None, :]]
    identity = torch.eye(b.shape[-1], dtype=b.dtype, device=b.device)
    gram = torch.where(on[..., :, None] & on[..., None, :], gram, identity)
    taken = solve(gram, b * on)
    by_word = torch.zeros_like(inner).scatter_(-1, nearest_word, taken)
    return by_word @ (targets.values - options.replace * targets.stand_in), ratio


def most_alike(likeness: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Return the word ``(B, T, min(concepts, MOST))`` by which each concept is most like a token, of no more than the
    ``MOST`` concepts that are most like it, and how like all concepts are ``(B, T, concepts)``.

    ``likeness`` is ``(B, T, W)``; ``words (concepts, M)`` as in :class:`Targets`.
    """
    of_concept, place = likeness[..., words].max(-1)
    nearest_word = words.expand(*place.shape, -1).gather(-1, place[..., None])[..., 0]
    if len(words) > MOST:
        nearest_word = nearest_word.gather(-1, of_concept.topk(MOST).indices)
    return nearest_word, of_concept


def solve(gram: Tensor, b: Tensor) -> Tensor:
    """Return the coefficients G^-1 b for ``(..., K, K)`` and ``(..., K)``."""
    ridge = RIDGE * torch.finfo(gram.dtype).eps * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    identity = torch.eye(b.shape[-1], dtype=b.dtype, device=b.device)
    solved: Tensor = torch.linalg.solve_ex(gram + ridge * identity, b)[0]  # whose check would wait for the device
    return solved


def beyond(vectors: Tensor, basis: Tensor) -> Tensor:
    """Return what *vectors* ``(..., C)`` have outside the span of an orthonormal *basis* ``(r, C)``."""
    return vectors - vectors @ basis.T @ basis
