"""SAFREE: tokens that bring a prompt near the concepts are projected away from them (Yoon et al., ICLR 2025, arXiv
2410.12761, section 3; its text part and self-validating filter, without the re-attention in Fourier space).

With p_k the end-of-text embeddings of the concepts' words, columns of C, and p_\\i those of the prompt with token i
replaced by id 0, columns of I:

    P_C = C (C^T C)^+ C^T,   P_I = I (I^T I)^+ I^T
    d_i = ||(1 - P_C) p_\\i||           long where token i was what tied the prompt to the concepts
    token i is a trigger where d_i >= (1 + alpha) mean_{j != i} d_j
    e_i <- (1 - P_C) P_I e_i  of triggers; all other tokens, the end of text and the padding stay

and, with the filter on (``svf``), the sample goes back to its own embeddings after step t':

    beta = 1 - mean cos((1 - P_C) P_I e, e)  over start, words and end,   t' = round(up_t sigmoid(2 k (10 beta - m)))

The order of the two projections is that of the authors' code. The subspace is common to all concepts, so there is one
gate, the share of a prompt's tokens that were triggers. It keeps little untouched: in most prompts, concerned or not,
some token lies above the mean of the others, and a lone token always is a trigger. The authors' script passes the
concepts as a negative prompt besides; put ``negative_prompt`` into the recipe for that. Projections are computed in
float64. SDXL's two encoders are taken as one embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pipeline.concepts.concept import Concept
from pipeline.erasure.method import Method, Prompts, Sampling, Steering
from pipeline.erasure.tokens import end_of_text
from pipeline.errors import ConfigError
from pipeline.models.layers import Layer, split_heads
from pipeline.models.load import Model

MASK = 0  # the id that stands in for a masked token
ROWS = 32  # masked prompts are encoded so many at a time, padded, so that none depends on how many there are
KNOWN = 1024  # prompts whose masks are remembered: a basis of 20 tokens in 768 dimensions takes 120 KB
RANK = 1e-6  # singular values below this share of the largest are rounding


@dataclass(kw_only=True)
class SAFREEOptions:
    alpha: float = 0.01
    svf: bool = True
    up_t: int = 10  # the latest step to which the filter lets the projection act
    m: float = 5.333  # the authors use 5.5 and 3.5 for artists
    k: float = 2.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is {self.alpha:g}; expected 0 to 1")
        if self.up_t < 0:
            raise ConfigError(f"up_t is {self.up_t}; expected 0 or more steps")
        if self.k <= 0:
            raise ConfigError(f"k is {self.k:g}; expected more than 0")


@dataclass(frozen=True)
class Masked:
    """What masking tells of a prompt: which tokens are ``triggers`` ``(n,)``, and an orthonormal ``basis (r, D)``."""

    triggers: Tensor
    basis: Tensor


class SAFREE(Method):
    """Conditions prompts; with the filter on it steers instead, since it must give the embeddings back."""

    Options = SAFREEOptions
    requires = frozenset({"token_ids", "cross_attention"})
    options: SAFREEOptions

    def __init__(self, model: Model, concepts: Sequence[Concept], options: SAFREEOptions, *, label: str):
        super().__init__(model, concepts, options, label=label)
        self.stream = model.family.streams[0]
        words = [word for concept in concepts for word in concept.words]
        ends = [model.family.encode([word]).embeds[0, end_of_text(self.stream, word)] for word in words]
        self.concept_basis = orthonormal(torch.stack(ends))
        self._known: dict[str, Masked] = {}

    def condition(self, prompts: Prompts) -> Prompts:
        masked = self._masked(prompts.texts)
        shares = [m.triggers.float().mean().item() if len(m.triggers) else 0.0 for m in masked]
        gates = {f"{self.label}:all": torch.tensor(shares)}
        if self.options.svf:
            return prompts.changed(gates=gates)
        safe = torch.stack([self.safe(e, m) for e, m in zip(prompts.positive.embeds, masked, strict=True)])
        return prompts.changed(positive=replace(prompts.positive, embeds=safe), gates=gates)

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering | None:
        if not self.options.svf:
            return None
        masked = self._masked(prompts.texts)
        rows = [i for i, m in enumerate(masked) if m.triggers.any()]
        if not rows:
            return None
        embeds = prompts.positive.embeds
        first = len(prompts) if prompts.negative is not None else 0
        return SAFREESteering(
            rows=torch.tensor([first + row for row in rows], device=embeds.device),
            change=torch.stack([self.safe(embeds[row], masked[row]) - embeds[row] for row in rows]),
            until=torch.tensor([self.until(embeds[row], masked[row]) for row in rows], device=embeds.device),
        )

    def projected(self, embeds: Tensor, masked: Masked) -> Tensor:
        """Return (1 - P_C) P_I e of embeddings ``(T, D)``, float64."""
        within = embeds.double() @ masked.basis.T @ masked.basis
        return within - within @ self.concept_basis.T @ self.concept_basis

    def safe(self, embeds: Tensor, masked: Masked) -> Tensor:
        """Return embeddings ``(T, D)`` with the triggers projected."""
        if not masked.triggers.any():
            return embeds
        triggers = torch.zeros(len(embeds), dtype=torch.bool, device=embeds.device)
        first = self.stream.offset + 1
        triggers[first : first + len(masked.triggers)] = masked.triggers
        return torch.where(triggers[:, None], self.projected(embeds, masked).to(embeds.dtype), embeds)

    def until(self, embeds: Tensor, masked: Masked) -> int:
        """Return t', the last step at which the prompt's triggers are projected."""
        attended = slice(self.stream.offset, self.stream.offset + len(masked.triggers) + 2)
        near = cosine_similarity(self.projected(embeds, masked)[attended], embeds[attended].double(), dim=-1).mean()
        options = self.options
        return round(options.up_t * torch.sigmoid(2 * options.k * (10 * (1 - near) - options.m)).item())

    def distances(self, ends: Tensor) -> Tensor:
        """Return ||(1 - P_C) p|| of end-of-text embeddings ``(n, D)``."""
        ends = ends.double()
        distances: Tensor = (ends - ends @ self.concept_basis.T @ self.concept_basis).norm(dim=-1)
        return distances

    def triggers(self, ends: Tensor) -> Tensor:
        """Tell which tokens are triggers ``(n,)``, by the end-of-text embeddings without each ``(n, D)``."""
        d = self.distances(ends)
        others = (d.sum() - d) / (len(d) - 1)  # not a number where there are no others: a lone token is a trigger
        return ~(d < (1 + self.options.alpha) * others)

    def _ids(self, text: str) -> list[int]:
        return list(self.stream.tokenizer(text, truncation=True, max_length=self.stream.length).input_ids)

    def _masked(self, texts: Sequence[str]) -> list[Masked]:
        unknown = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(unknown) > KNOWN:
            self._known.clear()
            unknown = list(dict.fromkeys(texts))
        ids = [self._ids(text) for text in unknown]
        ends = self._without_each(ids)
        for text, own in zip(unknown, ends.split([len(one) - 2 for one in ids]), strict=True):
            self._known[text] = Masked(self.triggers(own), orthonormal(own))
        return [self._known[text] for text in texts]

    def _without_each(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the end-of-text embeddings ``(n, D)`` of every prompt with each of its tokens masked, in order."""
        rows, ends = [], []
        for ids in prompts:
            padded = [*ids, *[self.stream.tokenizer.pad_token_id] * (self.stream.length - len(ids))]
            for i in range(1, len(ids) - 1):
                rows.append([*padded[:i], MASK, *padded[i + 1 :]])
                ends.append(self.stream.offset + len(ids) - 1)
        if not rows:
            return self.concept_basis[:0]
        count = len(rows)
        rows += [rows[-1]] * (-count % ROWS)
        ends += [0] * (-count % ROWS)
        parts = [
            self.model.family.encode_ids(chunk)[torch.arange(ROWS), at]
            for chunk, at in zip(torch.tensor(rows).split(ROWS), torch.tensor(ends).split(ROWS), strict=True)
        ]
        return torch.cat(parts)[:count]


class SAFREESteering(Steering):
    """The denoiser's rows ``rows (R,)`` have ``change (R, T, D)`` in their text up to the steps ``until (R,)``.

    Keys and values are linear in the text, so their change is added to whatever earlier steerings made of them.
    """

    def __init__(self, *, rows: Tensor, change: Tensor, until: Tensor):
        super().__init__()
        self.rows = rows
        self.change = change
        self.until = until
        self.last = frozenset(until.tolist())
        self.step = 0

    def begin(self, step: int, timestep: Tensor) -> None:
        self.step = step
        self.stale = step - 1 in self.last

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        changed = self.until >= self.step
        if not changed.any():
            return key, value
        rows, change = self.rows[changed], self.change[changed]
        key, value = key.clone(), value.clone()
        key[rows] += split_heads(layer.module.to_k(change), layer.heads)
        value[rows] += split_heads(layer.module.to_v(change), layer.heads)
        return key, value


def orthonormal(vectors: Tensor) -> Tensor:
    """Return an orthonormal basis ``(r, D)``, float64, of the span of ``(n, D)`` *vectors*."""
    if not len(vectors):
        return vectors.double()
    _, singular, basis = torch.linalg.svd(vectors.double(), full_matrices=False)
    spanning: Tensor = basis[singular > RANK * singular[0]]
    return spanning
