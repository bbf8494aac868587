"""UCE: cross-attention keys and values rewritten in closed form, all concepts jointly (Gandikota et al., WACV 2024).

For every text projection W (out, in), eq. 7 of arXiv 2308.14761:

    W' = (lamb W + e sum_i v*_i c_i^T + p sum_j W c_j c_j^T) (lamb I + e sum_i c_i c_i^T + p sum_j c_j c_j^T)^-1

with v*_i = W a_i. Here c_i are token embeddings of prompts that name a concept, a_i those of the same prompts with the
anchor in its place, and c_j those of prompts to preserve.

Which tokens are used decides whether it erases at all. In a causal text encoder every token from the last one of the
concept's name on carries the concept: the words after it, the end-of-text token and all the padding, which makes up
most of the sequence and draws much of the attention. So c_i runs over all of them, aligned with the anchor prompt's
tokens at the same distance from its last word; all padding of a prompt together weighs as ``pads`` tokens, so that 70
of them do not drown the name itself. Several templates, some going on after the name, make it hold in context.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.erasure.concept import Concept
from pipeline.erasure.method import Method
from pipeline.erasure.tokens import end_of_text, token_spans, word_pattern, word_spans
from pipeline.errors import ConfigError
from pipeline.models.family import TextStream
from pipeline.prompts.mentions import plurals

TEMPLATES = (
    "{}",
    "a {}",
    "two {plural}",
    "a photo of a {}",
    "a {} and a tree",
    "a house and a {} in the snow",
)

# Texts that have nothing to do with most concepts, kept as they are besides a concept's own neighbours.
KEEP = (
    "a street in a city",
    "an old book on a table",
    "a portrait of a woman",
    "a man with a hat",
    "a car and a bicycle",
    "flowers in a garden",
    "a boat on a lake at sunset",
    "a plate of food",
    "a sketch of a building",
    "an abstract painting in blue and red",
    "a bird in the sky",
    "a chair in a room",
)


@dataclass(kw_only=True)
class UCEOptions:
    """Weights of eq. 7 per token; the official defaults are erase 1, preserve 1, lamb 0.5."""

    erase: float = 1.0
    preserve: float = 1.0
    lamb: float = 0.5
    pads: float = 4.0  # how many tokens all the padding of a prompt counts as
    templates: list[str] = field(default_factory=lambda: list(TEMPLATES))
    keep: list[str] = field(default_factory=lambda: list(KEEP))  # texts preserved besides the concepts' neighbours

    def __post_init__(self) -> None:
        for name in ("erase", "preserve", "lamb", "pads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if self.erase == 0 or self.lamb == 0:
            raise ConfigError("erase and lamb must be above 0 (without lamb the system is singular)")
        for template in self.templates:
            if template.count("{}") + template.count("{plural}") != 1:
                raise ConfigError(f"template {template!r} must hold '{{}}' or '{{plural}}' once")


@dataclass(frozen=True)
class Pairs:
    """Weighted token embeddings ``inputs`` (n, D), what they are to count as (n, D), and ``weights`` (n,); float64."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor


class UCE(Method):
    """Edits keys and values of all cross-attention layers."""

    Options = UCEOptions
    requires = frozenset({"text_projections"})
    options: UCEOptions

    def edit(self) -> dict[str, Tensor]:
        pairs = self.token_pairs()
        return {
            p.name: solve(p.weight, pairs, self.options.lamb).to(p.weight.dtype)
            for p in self.model.family.text_projections()
            if p.kind in ("key", "value")
        }

    def token_pairs(self) -> Pairs:
        """Collect (c_i, a_i) of all concepts and (c_j, c_j) of all that is preserved, with their weights."""
        stream = self.model.family.streams[0]
        erased = word_pattern([word for concept in self.concepts for word in concept.words])
        rows: list[tuple[Tensor, Tensor, float]] = []
        for concept in self.concepts:
            for word in concept.words:
                rows += self._erase_rows(stream, concept, word)
        kept = {word for concept in self.concepts for word in (*concept.preserve, concept.anchor)}
        texts = [
            fill(t, word) for word in sorted(kept) if word and not erased.search(word) for t in self.options.templates
        ]
        for text in ["", *texts, *(text for text in self.options.keep if not erased.search(text))]:
            for embedding, weight in self._whole(stream, text):
                rows.append((embedding, embedding, self.options.preserve * weight))
        inputs, targets, weights = zip(*rows, strict=True)
        return Pairs(torch.stack(inputs), torch.stack(targets), torch.tensor(weights, dtype=torch.float64))

    def _erase_rows(self, stream: TextStream, concept: Concept, word: str) -> Iterator[tuple[Tensor, Tensor, float]]:
        options = self.options
        for template in options.templates:
            text, other = fill(template, word), fill(template, concept.anchor)
            start, stop = self._last_token(stream, text, word), end_of_text(stream, text)
            if start is None:
                raise ConfigError(f"uce: the word {word!r} of concept {concept.name!r} tokenises to nothing")
            anchor_stop = end_of_text(stream, other)
            embeds, anchors = self._embed(text), self._embed(other)
            for i in range(start, stop):  # the name and the words after it, at the same distance from the end
                j = anchor_stop - (stop - i)
                if not concept.anchor:
                    j = max(j, stream.offset + 1)
                yield embeds[i], anchors[j], options.erase
            yield embeds[stop], anchors[anchor_stop], options.erase
            pads = range(stop + 1, stream.offset + stream.length)
            for i in pads:
                j = min(anchor_stop + i - stop, pads.stop - 1)
                yield embeds[i], anchors[j], options.erase * options.pads / len(pads)

    def _whole(self, stream: TextStream, text: str) -> Iterator[tuple[Tensor, float]]:
        """Yield every token of *text*, and its padding."""
        embeds, stop = self._embed(text), end_of_text(stream, text)
        pads = range(stop + 1, stream.offset + stream.length)
        for i in range(stream.offset, pads.stop):
            yield embeds[i], self.options.pads / len(pads) if i in pads else 1.0

    @staticmethod
    def _last_token(stream: TextStream, text: str, word: str) -> int | None:
        (tokens,) = token_spans(stream, text, word_spans(text, [word])[:1])
        return tokens[-1] if tokens else None

    def _embed(self, text: str) -> Tensor:
        """Return the token embeddings ``(T, D)`` of *text*, float64."""
        return self.model.family.encode([text]).embeds[0].double()


def fill(template: str, word: str) -> str:
    """Return the template with *word* in it; for an empty word, what is left of the template without its noun.

    >>> fill("two {plural}", "fox"), fill("a photo of a {}", "")
    ('two foxes', 'a photo of')
    """
    if word:
        return template.format(word, plural=plurals(word)[0])
    return " ".join(re.sub(r"(?:\b(?:an?|the|two)\s+)?\{(?:plural)?\}", "", template).split())


def solve(weight: Tensor, pairs: Pairs, lamb: float) -> Tensor:
    """Return W' of eq. 7 for W *weight* ``(out, in)``, float64, whatever the dtype of *weight*.

    Solved for the change, which needs no inverse of a sum that is nearly W: W' - W = W (A - C) (lamb I + C')^-1 with
    A = sum w a c^T, C = sum w c c^T over all pairs.
    """
    w = weight.double()
    c, a, weights = (x.to(w.device) for x in (pairs.inputs, pairs.targets, pairs.weights))
    gram = (c * weights[:, None]).T @ c + lamb * torch.eye(c.shape[1], dtype=w.dtype, device=w.device)
    moved = w @ ((a - c) * weights[:, None]).T @ c  # (out, in)
    return w + torch.linalg.solve(gram, moved.T).T  # gram is symmetric
