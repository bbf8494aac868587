"""The variants of CEASE that ``ablate_cease.py`` sets against each other: WHEN it acts, WHERE, and HOW."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.erasure.cease.alternatives import marked
from pipeline.erasure.cease.hearing import ConceptDirections, Listener
from pipeline.erasure.cease.method import CEASE
from pipeline.erasure.cease.options import CEASEOptions
from pipeline.erasure.cease.steering import CEASESteering
from pipeline.erasure.gate.text import Hit
from pipeline.erasure.method import Prompts
from pipeline.models.attention import projected
from pipeline.models.layers import Layer
from pipeline.models.load import Model
from pipeline.models.reading import Reader, RowKind
from pipeline.models.switching import OtherText


class Shown(CEASESteering):
    """CEASE as it is; its variants may ask the method that made them."""

    def __init__(self, method: CEASE, *batch: Any):
        super().__init__(method.options, *batch)
        self.method = method


class Variant(CEASE):
    """CEASE with a steering of its own; ``embeds`` takes the concept's direction from the text instead of its words."""

    def __init__(self, model: Model, concept: Concept, steering: type[Shown], **options: Any):
        super().__init__(model, [concept], CEASEOptions(**options), label="cease")
        self.steering = steering

    def _steering(self, *batch: Any) -> CEASESteering:
        return self.steering(self, *batch)


class Everywhere(Shown):
    """WHERE: everywhere, from the first step on."""

    def begin(self, step: int, timestep: Tensor) -> None:
        self.looks = self.gathers = False
        self.place.everywhere()
        self.switching.weights = self.place.weights(self.strength)


class ProbeKeys(Shown):
    """WHERE: the place that listens to a probe, the concept's bare name, whatever words the prompt has for it."""

    def __init__(self, method: CEASE, *batch: Any):
        super().__init__(method, *batch)
        name, family = method.concepts[0].name, method.model.family
        self.probe = family.encode([f"a {name}"]).embeds
        marks = marked(Reader(family), f"a {name}", [(2, 2 + len(name))])
        self.switching.own_marks = self.marks([marks] * self.samples)

    def switch(self, layer: Layer, key: Tensor, value: Tensor) -> OtherText:
        other = super().switch(layer, key, value)
        return replace(other, own=projected(layer.module, self.probe)[0].expand_as(other.own))


class HeardPlace(Shown):
    """WHERE: the place where the concept is heard (``hearing.py``), also where a word told of it."""

    def __init__(self, method: CEASE, *batch: Any):
        super().__init__(method, *batch)
        concepts = ConceptDirections(method.model.family, method.concepts)
        self.listener = Listener(concepts, self.place.latent_shape)

    def begin(self, step: int, timestep: Tensor) -> None:
        super().begin(step, timestep)
        self.switching.gathers = False

    def blend(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        if self.gathers and self.listener.listens(query.shape[2]):
            heard = self.listener.heard(layer, query[-self.samples :], output[-self.samples :]).flatten(2)
            self.place.gather(heard.amax(1).clamp_min(0)[None])
        return output


class Suppression(Shown):
    """HOW: inside the place nothing listens to the concept's tokens."""

    def __init__(self, method: CEASE, *batch: Any):
        super().__init__(method, *batch)
        self.switching.mask = self.switching.own_marks[:, None, :, :, 0].transpose(1, 2) == 0

    def switch(self, layer: Layer, key: Tensor, value: Tensor) -> OtherText:
        return OtherText(key[-self.samples :], value[-self.samples :], key[-self.samples :])


class Values(Shown):
    """HOW: the prompt's own values less what they have of the direction from anchor to concept, relu(v.u) u."""

    def switch(self, layer: Layer, key: Tensor, value: Tensor) -> OtherText:
        key, kept = key[-self.samples :], value[-self.samples :]  # (B, heads, T, d)
        concept, anchor = self.method.directions.ends(self.method.concepts[0].name)
        direction = layer.module.to_v((concept - anchor)[0].to(value.dtype))[RowKind.word]  # at the concept's name
        u = torch.nn.functional.normalize(direction.view(layer.heads, 1, -1), dim=-1)
        return OtherText(key, kept - (kept * u).sum(-1, keepdim=True).relu() * u, key)


class Embeddings(Variant):
    """HOW: the prompt's embeddings less the concept's direction, also where a word means the concept."""

    def _alternatives(self, texts: list[str], hits: list[list[Hit]], prompts: Prompts, rows: list[int]) -> Any:
        implied = [[replace(hit, score=0.0, meant=False) for hit in found] for found in hits]
        return super()._alternatives(texts, implied, prompts, rows)


def variant(
    steering: type[Shown] = Shown, kind: type[Variant] = Variant, **options: Any
) -> Callable[[Model, Concept], CEASE]:
    return lambda model, concept: kind(model, concept, steering, **options)


NO_WORDS: dict[str, Any] = {"unlisted": False}  # beyond those of the list
ALONE: dict[str, Any] = {"context": False, "attention": 1.0}
VARIANTS: dict[str, Callable[[Model, Concept], CEASE]] = {
    "chosen": variant(),
    "when: listed words": variant(**ALONE, **NO_WORDS),
    "when: words": variant(**ALONE),
    "when: context": variant(**NO_WORDS),
    "when: attention": variant(context=False, attention=0.37, **NO_WORDS),
    "when: words and attention": variant(context=False, attention=0.37),
    "when: attention .32": variant(context=False, attention=0.32, **NO_WORDS),
    "when: attention .42": variant(context=False, attention=0.42, **NO_WORDS),
    "when: always on": variant(always_on=True),
    "where: everywhere": variant(Everywhere),
    "where: probe keys": variant(ProbeKeys),
    "where: heard": variant(HeardPlace),
    "where: look .25": variant(look=0.25),
    "where: threshold .6": variant(threshold=0.6),
    "how: values": variant(Values),
    "how: embeddings": variant(kind=Embeddings),
    "how: suppression": variant(Suppression),
    "how: push 0": variant(push=0.0),
}
