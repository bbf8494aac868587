"""CEASE for joint attention (SD3, FLUX): inside the concept's place the image listens to another prompt.

In joint attention text tokens answer the image and change in every layer and step, so there are no keys and values of
an anchor prompt to compute once and switch to, as ``method.py`` does; and overwriting the prompt's own tokens would not
stay in the concept's place, because all text tokens hear all of the image. What is sound is to carry the alternative
text through the layers beside the prompt's own (``JointLayer.follow``): it meets the same image tokens, in its own
attention and feed-forward parts, modulated by its own pooled vector, and per layer the image gets

    out = (1 - m) * attn(q, [K_prompt, K_image], [V_prompt, V_image])
        +      m  * attn(q, [K_alt,    K_image], [V_alt,    V_image])

With m = 1 everywhere this is, but for rounding, the picture of the alternative prompt itself (a test holds it), with
m = 0 that of the prompt, so m decides place by place.

- WHEN (``gate/text.py``): per sample, from the text alone: prompts with a word that means a concept or implies one.
- WHAT: where a word means a concept, the prompt with the anchor in its place; where one only implies it, the prompt's
  embeddings, of every text encoder, less what they have of the direction from anchor to concept (``alternatives.py``).
- WHERE (``mask.py``): gathered in the middle layers from how the image attends to the concept's tokens among all text
  tokens. For the first ``look`` share of the steps, and at least the first step, m is 0. ``look: 0`` is for models of
  few steps, which settle what to draw in their first: then m is 1 everywhere in the first step.
- The pooled vector has no place; it is that of the alternative from the beginning (``alternatives.py``), for the
  image as for the text that is carried along.

Cost, for concerned samples alone: the text tokens' share of a forward once more and a second attention of the image
tokens. A further forward would be the simpler way to the same end, at twice the time. Whether a mask from FLUX's
attention finds the concept has not been measured: no model of that kind ships with Lacuna.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.config.sections.generation import GenerationConfig
from pipeline.erasure.cease.alternatives import (
    Directions,
    encode_together,
    implied_by,
    marked,
    replaced,
    swap_pooled,
)
from pipeline.erasure.cease.mask import PlaceMask, check_look
from pipeline.erasure.gate.calibration import OPENS, check_false_alarms
from pipeline.erasure.gate.text import Hit, TextGate
from pipeline.erasure.method import Method, Prompts, Sampling, Steering
from pipeline.errors import ConfigError
from pipeline.models.family import Family
from pipeline.models.joint import JointFamily
from pipeline.models.load import Model
from pipeline.models.reading import Reader
from pipeline.models.switching import MARKS, Carrying
from pipeline.models.transfer import to_device
from pipeline.statistics import rounded_down

HEADS = 4  # of a layer's heads so many are looked at for the mask: all 24 of FLUX would take 200 MB a picture


@dataclass(kw_only=True)
class CEASEJointOptions:
    """``look`` and ``gather`` are shares of the steps."""

    RENAMED: ClassVar[Mapping[str, str]] = {"gate": "false_alarms"}

    unlisted: bool = True  # a prompt with a word that comes near a concept is concerned, not only with a listed one
    false_alarms: float | None = None  # of everyday words come near by chance; none: words.false_alarms
    look: float = 0.15  # until then only maps are gathered
    gather: float = 0.6  # maps are gathered until then; later ones only redraw what is already there
    threshold: float = 0.5  # of the map's range, above which a position belongs to the concept
    implied_threshold: float = 0.3  # the same, where words only imply the concept: they look at other things as well

    def __post_init__(self) -> None:
        for name in ("look", "gather", "threshold", "implied_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        check_false_alarms(self.false_alarms)


class CEASEJoint(Method):
    """Steers joint attention towards the anchor, where and when the concept is named."""

    Options = CEASEJointOptions
    once = "each would draw what another takes away"
    requires = frozenset({"joint_attention"})
    options: CEASEJointOptions

    def __init__(self, model: Model, concepts: Sequence[Concept], options: CEASEJointOptions, *, label: str):
        super().__init__(model, concepts, options, label=label)
        self.gate = self.text_gate(model.family, concepts, options)
        self.directions = Directions(model.family, concepts)

    @classmethod
    def text_gate(cls, family: Family, concepts: Sequence[Concept], options: CEASEJointOptions) -> TextGate:
        return TextGate(family, concepts, false_alarms=options.false_alarms, unlisted=options.unlisted)

    @classmethod
    def check_sampling(cls, options: Any, generation: GenerationConfig) -> None:
        super().check_sampling(options, generation)
        check_look(options.look, generation.steps)

    def condition(self, prompts: Prompts) -> Prompts:
        return swap_pooled(self.model.family, prompts, self._hits(prompts))

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering | None:
        hits = self._hits(prompts)
        rows = [i for i, found in enumerate(hits) if found]
        scores = torch.tensor([self.gate.scores(text) for text in prompts.texts], dtype=torch.float32)
        steering = Steering()
        if rows:
            chosen = [(prompts.texts[i], hits[i]) for i in rows]
            alternatives = self._alternatives(prompts, rows, [found for _, found in chosen])
            reader = prompts.reader(self.model.family)
            spans = [(text, [(hit.start, hit.stop) for hit in found]) for text, found in chosen]
            tokens = torch.stack([marked(reader, text, where) for text, where in spans])
            steering = CEASEJointSteering(
                self, rows, [found for _, found in chosen], alternatives, tokens, prompts, sampling
            )
        steering.gates = {f"{self.label}:{c.name}": scores[:, k] for k, c in enumerate(self.concepts)}
        return steering

    def opens(self, gate: str) -> float | None:
        return OPENS

    def explain(self, text: str) -> list[str]:
        hits = self.gate.hits(text)
        if not hits:
            return [f"no word comes near enough to a concept (gate {OPENS}): left alone, bit for bit"]
        lines = [
            f"“{text[hit.start : hit.stop]}” {'means' if hit.meant else 'implies'} {hit.concept.name} "
            f"({rounded_down(hit.score)})"
            for hit in hits
        ]
        where = "all over the picture" if any(hit.concept.everywhere for hit in hits) else "inside its place"
        if meant := [hit for hit in hits if hit.meant]:
            other, _ = replaced(Reader(self.model.family), text, meant)
            lines.append(f"{where} the picture listens to “{' '.join(other.split())}”")
        if implied := implied_by(hits):
            lines.append(f"{where} the direction of {', '.join(implied)} is taken from the prompt's embeddings")
        return lines

    def _hits(self, prompts: Prompts) -> list[list[Hit]]:
        return [self.gate.hits(text) for text in prompts.texts]

    def _alternatives(self, prompts: Prompts, rows: Sequence[int], hits: Sequence[Sequence[Hit]]) -> list[Tensor]:
        """Return what each of the prompts *rows*, with its *hits*, is to hear in its concepts' place, ``(T, D)``."""
        reader = prompts.reader(self.model.family)
        meant = [[hit for hit in found if hit.meant] for found in hits]
        others = [replaced(reader, prompts.texts[i], found)[0] for i, found in zip(rows, meant, strict=True)]
        encoded, own = encode_together(reader, others).embeds, prompts.positive.embeds
        # Where no word means a concept, the prompt's own embeddings (as other methods left them) are the start.
        embeds = [encoded[k] if found else own[row] for k, (row, found) in enumerate(zip(rows, meant, strict=True))]
        return [
            self.directions.less(start, implied_by(found), reader, other)
            for start, found, other in zip(embeds, hits, others, strict=True)
        ]


class CEASEJointSteering(Steering):
    """Switches the attention of the samples ``rows`` of one batch; ``tokens (rows, T)`` are 1 where theirs count."""

    carrying: Carrying

    def __init__(
        self,
        method: CEASEJoint,
        rows: Sequence[int],
        hits: Sequence[Sequence[Hit]],
        alternatives: Sequence[Tensor],
        tokens: Tensor,
        prompts: Prompts,
        sampling: Sampling,
    ):
        super().__init__()
        family, device = method.model.family, method.model.device
        assert isinstance(family, JointFamily)
        self.family, self.options, self.sampling = family, method.options, sampling
        self.samples, self.members = len(prompts), list(rows)
        own, dtype = prompts.positive, prompts.positive.embeds.dtype
        place = {row: k for k, row in enumerate(rows)}
        # All samples go through the switch; those that are not concerned carry their own text, with the weight 0.
        embeds = [alternatives[place[i]] if i in place else own.embeds[i] for i in range(len(prompts))]
        self.alternatives = replace(own, embeds=torch.stack(embeds))  # the pooled vectors are swapped already
        marks = torch.zeros(len(prompts), own.embeds.shape[1])  # zeros also where no stream is (SD3 without T5)
        strength, thresholds, everywhere = torch.zeros(len(prompts), 1, 1), [1.0] * len(prompts), []
        for row, k in place.items():
            marks[row, : tokens.shape[1]], strength[row] = tokens[k], 1.0
            thresholds[row] = method.options.implied_threshold if implied_by(hits[k]) else method.options.threshold
            if any(hit.concept.everywhere for hit in hits[k]):
                everywhere.append(row)
        self.placeless = bool(everywhere)
        everywhere += [row for row in range(len(prompts)) if row not in place]
        self.strength = to_device(strength.to(dtype), device)
        self.place = PlaceMask(len(prompts), sampling.latent_shape, thresholds, device, everywhere)
        columns = marks[:, None, :, None].expand(-1, -1, -1, MARKS).to(dtype).contiguous()
        watched = range(family.depth // 3, max(family.depth // 3 + 1, 2 * family.depth // 3))
        self.carrying = Carrying(own_marks=to_device(columns, device), watched=watched, heads=HEADS)
        self.looks = self.gathers = True

    def begin(self, step: int, timestep: Tensor) -> None:
        self.absorb()
        done = step / self.sampling.steps
        self.looks = self.sampling.steps > 1 and self.options.look > 0 and (step == 0 or done < self.options.look)
        self.place.begin(step, self.looks, self.gathers)
        self.gathers = done < self.options.gather or step == 0
        carrying = self.carrying
        carrying.gathers, carrying.switches = self.gathers, self.placeless or not self.looks
        if carrying.switches:
            carrying.entered = self.family.enter(self.alternatives, timestep, self.sampling.guidance)
            carrying.weights = self.place.weights(self.strength)

    def absorb(self) -> None:
        """Add to the place what the last forward has shown of it."""
        if self.carrying.maps:
            self.place.gather(torch.cat(self.carrying.maps))
            self.carrying.maps = []

    def masks(self) -> dict[str, Tensor]:
        self.absorb()
        return self.place.shown(self.samples, self.members, self.looks)
