"""Which tokens are a concept, what they are to become and what is to stay: what the closed-form edits share.

UCE, RECE and SPEED all solve for text projections that send token embeddings c to what others, a, give now. Published
code takes one token, the last of the concept's name, and so "runs and erases nothing" on many models: in a causal text
encoder every token from there on carries the concept: the words after it, the end-of-text token and all the padding,
which makes up most of the sequence and draws much of the attention. So c runs over all of them, aligned with the anchor
prompt's tokens at the same distance from its last word; all padding of a prompt together weighs as ``pads`` tokens, so
that 70 of them do not drown the name itself. In T5, which reads in both directions, the words before the name carry it
as well, and c runs over them too. Several templates, some going on after the name, make it hold in context.
The authors' choices stay available as ``tokens: subject`` (UCE, SPEED) and ``tokens: all`` (RECE).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming
from pipeline.erasure.least_squares import Targets
from pipeline.erasure.templates import KEEP, TEMPLATES, check_template, fill
from pipeline.erasure.tokens import end_of_text, word_rows
from pipeline.errors import ConfigError, nearest
from pipeline.models.family import Family, TextProjection, TextStream

CHOICES = ("following", "subject", "all")
CHUNK = 32  # texts encoded at a time


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


def check_not_negative(options: object, *names: str) -> None:
    """Refuse with ``ConfigError`` an option of *names* that is below 0."""
    for name in names:
        if getattr(options, name) < 0:
            raise ConfigError(f"{name} is {getattr(options, name)}; expected 0 or more")


def found_projections(family: Family, kinds: Sequence[str], label: str) -> list[TextProjection]:
    """Return the layers of these *kinds* that text enters. Raises ``ConfigError``, beginning with *label*, where there
    is none: an edit would change nothing."""
    found = [projection for projection in family.text_projections() if projection.kind in kinds]
    if not found:
        raise ConfigError(
            f"{label}: its {family.denoiser_name} has no layer of the kind {' or '.join(kinds)} that text enters, so "
            "there is nothing to edit"
        )
    return found


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
        self.naming = Naming(concepts)

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
        templates = [t for t in self.options.templates if not self.naming.names(fill(t, ""))]
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
        words = {word for concept in self.concepts for word in (*concept.unharmed, concept.anchor)}
        filled = [fill(t, word) for word in sorted(words) if word for t in self.options.templates]
        return [text for text in dict.fromkeys([*filled, *self.options.keep]) if not self.naming.names(text)]

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
