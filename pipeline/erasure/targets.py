"""Which tokens are a concept, what they are to become and what is to stay: what the closed-form edits share.

UCE, RECE and SPEED all solve for text projections that send token embeddings c to what others, a, give now. Published
code takes one token, the last of the concept's name, and so "runs and erases nothing" on many models: in a causal text
encoder every token from there on carries the concept: the words after it, the end-of-text token and all the padding,
which makes up most of the sequence and draws much of the attention. So c runs over all of them, aligned with the anchor
prompt's tokens at the same distance from its last word; all padding of a prompt together weighs as ``pads`` tokens, so
that 70 of them do not drown the name itself. In T5, which reads in both directions, the words before the name carry it
as well, and c runs over them too. Several templates, some going on after the name, make it hold in context.
The authors' choices stay available as ``tokens: subject`` (UCE, SPEED) and ``tokens: all`` (RECE).

A solve needs its pairs only as sums of outer products (``Moments``), so memory does not grow with the concepts.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.concepts.words import plurals, word_pattern
from pipeline.erasure.tokens import end_of_text, word_rows
from pipeline.errors import ConfigError, nearest
from pipeline.models.family import Family, TextStream

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

CHOICES = ("following", "subject", "all")
CHUNK = 32  # texts encoded at a time
WORST_CONDITION = 1e14  # in float64 two digits are then left


@dataclass(kw_only=True)
class TargetOptions:
    """Which tokens stand for a concept, and which texts are kept besides the concepts' anchors and neighbours."""

    tokens: str = "following"  # from the name's last token on; or that one ("subject"), or the whole prompt ("all")
    pads: float = 4.0  # how many tokens all the padding of a prompt counts as, with tokens: following
    templates: list[str] = field(default_factory=lambda: list(TEMPLATES))
    keep: list[str] = field(default_factory=lambda: list(KEEP))

    def __post_init__(self) -> None:
        if self.tokens not in CHOICES:
            raise ConfigError(
                f"tokens is {self.tokens!r}{nearest(self.tokens, CHOICES)}; expected one of {', '.join(CHOICES)}"
            )
        check_not_negative(self, "pads")
        if not self.templates:
            raise ConfigError("templates is empty; expected at least '{}'")
        for template in self.templates:
            check_template(template)
        for name in ("templates", "keep"):
            texts = getattr(self, name)
            for i, text in enumerate(texts):
                if text in texts[:i]:
                    raise ConfigError(f"{name} lists {text!r} twice; expected every text once")


def check_template(template: str) -> None:
    """Refuse with ``ConfigError`` what is no text with one place, ``{}`` or ``{plural}``, for a word of its own."""
    if not re.fullmatch(r"(?:[^{}]*[^{}\w])?\{(?:plural)?\}(?:[^{}\w][^{}]*)?", template):
        raise ConfigError(f"template {template!r} must hold '{{}}' or '{{plural}}' once, as a word of its own")


def check_not_negative(options: object, *names: str) -> None:
    """Refuse with ``ConfigError`` an option of *names* that is below 0."""
    for name in names:
        if getattr(options, name) < 0:
            raise ConfigError(f"{name} is {getattr(options, name)}; expected 0 or more")


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


class TokenTargets:
    """The pairs of some concepts in one of a model's text streams, by default its first."""

    def __init__(
        self,
        family: Family,
        concepts: Sequence[Concept],
        options: TargetOptions,
        *,
        label: str,
        stream: TextStream | None = None,
    ):
        self.family = family
        self.stream = stream or family.streams[0]
        self.concepts = tuple(concepts)
        self.options = options
        self.label = label
        self.erased_words = word_pattern([word for concept in concepts for word in concept.words])

    def erased(self) -> Iterator[Targets]:
        """Yield (c_i, a_i) of every word of the concepts in every template."""
        for chunk in _chunks(self.edits()):
            embeds, anchors = self._embed([edit[0] for edit in chunk]), self._embed([edit[1] for edit in chunk])
            for c, a, (text, other, word, concept) in zip(embeds, anchors, chunk, strict=True):
                name = word_rows(self.stream, text, word, self.label)
                rows, others, weights = zip(*self._aligned(text, other, name, bool(concept.anchor)), strict=True)
                yield Targets(c[list(rows)], a[list(others)], torch.tensor(weights, dtype=c.dtype, device=c.device))

    def kept(self, *, empty: bool = True, most_pads: int | None = None) -> Iterator[Targets]:
        """Yield (c_j, c_j) of what stays: the *empty* text, anchors and neighbours in every template, ``keep``.

        Texts that name an erased concept are left out. At most *most_pads* of a text's padding, evenly spaced, stand
        for all of it. Without anything to keep, nothing is yielded.
        """
        for chunk in _chunks([""] * empty + self.keeps()):
            for c, text in zip(self._embed(chunk), chunk, strict=True):
                rows, weights = zip(*self._whole(text, most_pads), strict=True)
                inputs = c[list(rows)]
                yield Targets(inputs, inputs, torch.tensor(weights, dtype=c.dtype, device=c.device))

    def pooled_erased(self) -> Iterator[Targets]:
        """As ``erased``, of the vectors of whole prompts (``Conditioning.pooled``), each of weight 1."""
        for chunk in _chunks(self.edits()):
            c, a = self._pooled([edit[0] for edit in chunk]), self._pooled([edit[1] for edit in chunk])
            yield Targets(c, a, c.new_ones(len(c)))

    def pooled_kept(self) -> Iterator[Targets]:
        """As ``kept``, of the vectors of whole prompts."""
        for chunk in _chunks(["", *self.keeps()]):
            c = self._pooled(chunk)
            yield Targets(c, c, c.new_ones(len(c)))

    def edits(self) -> list[tuple[str, str, str, Concept]]:
        """Return every template with a concept's word in it, with its anchor in it, that word and the concept.

        Templates that name an erased concept themselves are left out. Raises ``ConfigError`` where all of them do.
        """
        templates = [t for t in self.options.templates if not self.erased_words.search(fill(t, ""))]
        if not templates:
            raise ConfigError(f"{self.label}: every one of its templates names an erased concept; add '{{}}' to them")
        return [
            (fill(template, word), fill(template, concept.anchor), word, concept)
            for concept in self.concepts
            for word in concept.words
            for template in templates
        ]

    def keeps(self) -> list[str]:
        """Return the texts to keep, the empty one aside."""
        words = {word for concept in self.concepts for word in (*concept.preserve, concept.anchor)}
        filled = [fill(t, word) for word in sorted(words) if word for t in self.options.templates]
        return [text for text in dict.fromkeys([*filled, *self.options.keep]) if not self.erased_words.search(text)]

    def _aligned(self, text: str, other: str, name: range, anchored: bool) -> Iterator[tuple[int, int, float]]:
        """Yield rows of *text*, the rows of *other* that they are to become, and their weights."""
        stream, last = self.stream, name[-1]
        stop, other_stop = end_of_text(stream, text), end_of_text(stream, other)
        if self.options.tokens == "all":
            for i in range(stream.offset, stream.offset + stream.length):
                yield i, i, 1.0
            return
        if self.options.tokens == "subject":
            yield last, max(other_stop - 1, stream.offset), 1.0  # no word: the start token, or T5's end
            return
        if not stream.causal:  # the words before know the name too, and the name's first tokens how it ends
            for i in range(stream.first, last):
                j = other_stop - (stop - last) if i in name else min(i, other_stop - 1)
                yield i, max(j, stream.first), 1.0
        for i in range(last, stop):  # the name and the words after it, at the same distance from the end
            j = other_stop - (stop - i)
            yield i, j if anchored else max(j, stream.first), 1.0
        yield stop, other_stop, 1.0
        pads = range(stop + 1, stream.offset + stream.length)
        for i in pads:
            yield i, min(other_stop + i - stop, pads.stop - 1), self.options.pads / len(pads)

    def _whole(self, text: str, most_pads: int | None) -> Iterator[tuple[int, float]]:
        """Yield the rows of *text* that are kept, and their weights."""
        stream, stop = self.stream, end_of_text(self.stream, text)
        if self.options.tokens == "subject":
            yield max(stop - 1, stream.offset), 1.0
            return
        for i in range(stream.offset, stop + 1):
            yield i, 1.0
        pads: Sequence[int] = range(stop + 1, stream.offset + stream.length)
        if most_pads is not None and len(pads) > most_pads:
            pads = [pads[round(k * (len(pads) - 1) / max(1, most_pads - 1))] for k in range(most_pads)]
        for i in pads:
            yield i, 1.0 if self.options.tokens == "all" else self.options.pads / len(pads)

    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Return the token embeddings ``(len(texts), T, D)``, float64."""
        return self.family.encode(list(texts)).embeds.double()

    def _pooled(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of whole prompts ``(len(texts), P)``, float64."""
        pooled = self.family.encode(list(texts)).pooled
        assert pooled is not None
        return pooled.double()


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def fill(template: str, word: str) -> str:
    """Return the template with *word* in it; for an empty word, what is left of the template without its noun.

    >>> fill("two {plural}", "fox"), fill("a photo of a {}", "")
    ('two foxes', 'a photo of')
    """
    if word:
        return template.format(word, plural=plurals(word)[0])
    return " ".join(re.sub(r"(?:\b(?:an?|the|two)\s+)?\{(?:plural)?\}", "", template).split())


def right_solve(b: Tensor, a: Tensor, label: str, remedy: str) -> Tensor:
    """Return B A^-1, float64. Raises ``ConfigError``, with the *remedy*, where A is singular."""
    if not torch.linalg.cond(a, 1) < WORST_CONDITION:  # not, so that nan is refused too
        raise ConfigError(f"{label}: the system is singular; {remedy}")
    return torch.linalg.solve(a, b, left=False)
