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
gate, the share of a prompt's tokens that were triggers. To a text encoder each chunk of a long prompt is a text of its
own, and so it is here, but for t', which is the prompt's. It keeps little untouched: in most prompts, concerned or not,
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
from pipeline.models.reading import Reader

MASK = 0  # the id that stands in for a masked token
ROWS = 32  # masked prompts are encoded so many at a time, padded, so that none depends on how many there are
KNOWN = 1024  # chunks whose masks are remembered: a basis of 20 tokens in 768 dimensions takes 120 KB
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
    """What masking tells of a chunk of a prompt: which of its tokens are ``triggers`` ``(n,)``, and an orthonormal
    ``basis (r, D)``."""

    triggers: Tensor
    basis: Tensor


class SAFREE(Method):
    """Conditions prompts; with the filter on it steers instead, since it must give the embeddings back."""

    Options = SAFREEOptions
    requires = frozenset({"token_ids", "cross_attention"})
    chunks = True
    options: SAFREEOptions

    def __init__(self, model: Model, concepts: Sequence[Concept], options: SAFREEOptions, *, label: str):
        super().__init__(model, concepts, options, label=label)
        self.stream = model.family.streams[0]
        words = [word for concept in concepts for word in concept.words]
        ends = [model.family.encode([word]).embeds[0, end_of_text(self.stream, word)] for word in words]
        self.concept_basis = orthonormal(torch.stack(ends))
        self._known: dict[tuple[int, ...], Masked] = {}

    def condition(self, prompts: Prompts) -> Prompts:
        masked = self._masked(prompts.texts, prompts.reader(self.model.family))
        triggers = [torch.cat([chunk.triggers for chunk in chunks]) for chunks in masked]
        shares = [t.float().mean().item() if len(t) else 0.0 for t in triggers]
        gates = {f"{self.label}:all": torch.tensor(shares)}
        if self.options.svf:
            return prompts.changed(gates=gates)
        safe = torch.stack([self.safe(e, m) for e, m in zip(prompts.positive.embeds, masked, strict=True)])
        return prompts.changed(positive=replace(prompts.positive, embeds=safe), gates=gates)

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering | None:
        if not self.options.svf:
            return None
        masked = self._masked(prompts.texts, prompts.reader(self.model.family))
        rows = [i for i, chunks in enumerate(masked) if any(chunk.triggers.any() for chunk in chunks)]
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

    def safe(self, embeds: Tensor, masked: Sequence[Masked]) -> Tensor:
        """Return embeddings ``(T, D)`` of a prompt with the triggers of its chunks projected."""
        return torch.cat([self._safe(*chunk) for chunk in zip(embeds.chunk(len(masked)), masked, strict=True)])

    def _safe(self, embeds: Tensor, masked: Masked) -> Tensor:
        if not masked.triggers.any():
            return embeds
        triggers = torch.zeros(len(embeds), dtype=torch.bool, device=embeds.device)
        first = self.stream.offset + 1
        triggers[first : first + len(masked.triggers)] = masked.triggers
        return torch.where(triggers[:, None], self.projected(embeds, masked).to(embeds.dtype), embeds)

    def until(self, embeds: Tensor, masked: Sequence[Masked]) -> int:
        """Return t', the last step at which the triggers of a prompt, of embeddings ``(T, D)``, are projected."""
        near = []
        for own, chunk in zip(embeds.chunk(len(masked)), masked, strict=True):
            attended = slice(self.stream.offset, self.stream.offset + len(chunk.triggers) + 2)
            near.append(cosine_similarity(self.projected(own, chunk)[attended], own[attended].double(), dim=-1))
        options, beta = self.options, 1 - torch.cat(near).mean()
        until = options.up_t * torch.sigmoid(2 * options.k * (10 * beta - options.m))
        return round(until.nan_to_num().item())  # where a weight left the numbers, and the picture fails for that

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

    def _masked(self, texts: Sequence[str], reader: Reader) -> list[list[Masked]]:
        """Return what masking tells of every chunk of each prompt."""
        asked = [[tuple(ids) for ids in reader.chunk_ids(text)] for text in texts]
        distinct = list(dict.fromkeys(ids for chunks in asked for ids in chunks))
        unknown = [ids for ids in distinct if ids not in self._known]
        if len(self._known) + len(unknown) > KNOWN:
            self._known.clear()
            unknown = distinct
        ends = self._without_each(unknown)
        for ids, own in zip(unknown, ends.split([len(ids) - 2 for ids in unknown]), strict=True):
            self._known[ids] = Masked(self.triggers(own), orthonormal(own))
        return [[self._known[ids] for ids in chunks] for chunks in asked]

    def _without_each(self, chunks: Sequence[Sequence[int]]) -> Tensor:
        """Return the end-of-text embeddings ``(n, D)`` of every chunk with each of its tokens masked, in order."""
        rows, ends = [], []
        for ids in chunks:
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
            self.model.family.encode_ids(some).embeds[torch.arange(ROWS), at]
            for some, at in zip(torch.tensor(rows).split(ROWS), torch.tensor(ends).split(ROWS), strict=True)
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
        if self.step > max(self.last):
            return key, value
        changed = (self.until >= self.step)[:, None, None, None]
        key, value = key.clone(), value.clone()
        for own, projection in ((key, layer.module.to_k), (value, layer.module.to_v)):
            before = own[self.rows]
            after = before + split_heads(projection(self.change), layer.heads)
            own[self.rows] = torch.where(changed, after, before)
        return key, value


def orthonormal(vectors: Tensor) -> Tensor:
    """Return an orthonormal basis ``(r, D)``, float64, of the span of ``(n, D)`` *vectors*."""
    if not len(vectors):
        return vectors.double()
    _, singular, basis = torch.linalg.svd(vectors.double(), full_matrices=False)
    spanning: Tensor = basis[singular > RANK * singular[0]]
    return spanning
