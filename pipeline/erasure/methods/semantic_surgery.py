"""Semantic Surgery: the concept's vector is taken from the prompt's embeddings, as far as it is in them (Xiong et al.,
NeurIPS 2025, arXiv 2510.22851; its text part, without the visual feedback, which doubles the cost).

With e(.) the embeddings of a text, all tokens, n the neutral text and c_i the concepts:

    s_i = mean over tokens of cos(e(c_i) - e(n), e(p))         how far the concept is in the prompt ("biopsy")
    a_i = sigmoid((s_i + beta) / gamma)
    e'(p) = e(p) - max_i a_i (e("c_1, c_2, ...") - e(n))       over the concepts with a_i >= threshold, as one text

Nothing of it is known to the denoiser, so it works on every architecture and costs nothing while sampling; where a
prompt has one vector besides (``pooled``), the same is taken from it. A prompt in which no concept reaches the
threshold is left as it is, bit for bit. A concept is as present as the most present of its words; what is taken is its
name.

To a text encoder each chunk of a long prompt is a text of its own, and so it is here: s_i and a_i are a chunk's, the
gate tells the greatest of them, and the pooled vector is treated as the first chunk. From a token with a weight w, w
times as much is taken, which is what would be taken before weighing.

-beta is the similarity at which a concept counts as half there, and gamma how sharp that is. The authors set beta anew
for each kind of concept on Stable Diffusion 1.4: -0.06 explicit content, -0.12 objects (the default), -0.28
celebrities, -0.30 artists.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pipeline.concepts.concept import Concept
from pipeline.erasure.method import Method, Prompts
from pipeline.erasure.tensors import wide
from pipeline.errors import ConfigError
from pipeline.models.family import Conditioning
from pipeline.models.load import Model


@dataclass(kw_only=True)
class SemanticSurgeryOptions:
    gamma: float = 0.02
    beta: float = -0.12
    threshold: float = 0.5  # of a_i, from which on a concept counts as present
    neutral: str = ""

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ConfigError(f"gamma is {self.gamma:g}; expected more than 0")
        if not -1 <= self.beta <= 1:
            raise ConfigError(f"beta is {self.beta:g}; expected -1 to 1, as it is added to a cosine")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold:g}; expected 0 to 1")


class SemanticSurgery(Method):
    """Conditions the prompts that have a concept in them."""

    Options = SemanticSurgeryOptions
    chunks = True
    options: SemanticSurgeryOptions

    def __init__(self, model: Model, concepts: Sequence[Concept], options: SemanticSurgeryOptions, *, label: str):
        super().__init__(model, concepts, options, label=label)
        self.neutral = model.family.encode([options.neutral])
        words = [word for concept in concepts for word in concept.words]
        self.directions = wide(torch.cat([self._direction(word).embeds for word in words]))  # (words, T, D)
        self.owner = [i for i, concept in enumerate(concepts) for _ in concept.words]
        self._taken: dict[tuple[str, ...], Conditioning] = {}

    def condition(self, prompts: Prompts) -> Prompts:
        reader, chunks = prompts.reader(self.model.family), prompts.reading.chunks
        whole = prompts.positive.embeds
        embeds = whole.reshape(len(prompts) * chunks, -1, whole.shape[-1]).clone()  # a row a chunk
        alphas = self._alphas(embeds)  # (B * chunks, concepts)
        present = alphas >= self.options.threshold
        pooled = None if prompts.positive.pooled is None else prompts.positive.pooled.clone()
        for row in present.any(1).nonzero()[:, 0].tolist():
            names = tuple(c.name for c, there in zip(self.concepts, present[row].tolist(), strict=True) if there)
            if names not in self._taken:
                self._taken[names] = self._direction(", ".join(names))
            taken, alpha, (prompt, chunk) = self._taken[names], alphas[row].max(), divmod(row, chunks)
            less = alpha * wide(taken.embeds[0])
            if not prompts.reading.plain:
                less = less * reader.weights(prompts.texts[prompt]).to(less).view(chunks, -1, 1)[chunk]
            embeds[row] = (wide(embeds[row]) - less).to(embeds.dtype)
            if pooled is not None and taken.pooled is not None and chunk == 0:
                pooled[prompt] = (wide(pooled[prompt]) - alpha * wide(taken.pooled[0])).to(pooled.dtype)
        greatest = alphas.view(len(prompts), chunks, -1).amax(1).float()
        gates = {f"{self.label}:{concept.name}": greatest[:, i] for i, concept in enumerate(self.concepts)}
        positive = replace(prompts.positive, embeds=embeds.view_as(whole), pooled=pooled)
        return prompts.changed(positive=positive, gates=gates)

    def opens(self, gate: str) -> float | None:
        return self.options.threshold

    def _alphas(self, embeds: Tensor) -> Tensor:
        """Return a_i of prompts ``(B, T, D)``, ``(B, concepts)``: of each concept's most present word."""
        similar = torch.stack(
            [cosine_similarity(direction, wide(embeds), dim=-1).mean(-1) for direction in self.directions], dim=1
        )  # (B, words)
        alphas = torch.sigmoid((similar + self.options.beta) / self.options.gamma)
        owner = torch.tensor(self.owner, device=alphas.device).expand_as(alphas)
        return alphas.new_zeros(len(alphas), len(self.concepts)).scatter_reduce(1, owner, alphas, "amax")

    def _direction(self, text: str) -> Conditioning:
        """Return e(text) - e(n), one row."""
        encoded, neutral = self.model.family.encode([text]), self.neutral
        pooled = None
        if encoded.pooled is not None and neutral.pooled is not None:
            pooled = encoded.pooled - neutral.pooled
        return replace(encoded, embeds=encoded.embeds - neutral.embeds, pooled=pooled)
