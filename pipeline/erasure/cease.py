"""CEASE (Concept Erasure via Adaptive Switching): training-free, inside cross-attention, one denoiser forward a step.

Of the method of that name only a short description is public: spatially-adaptive switching of the inference process,
because a concept's features are localised in the cross-attention maps. This is our own design in that spirit:

- WHEN (``gate.py``): per sample, from the text alone, before the first step. An unconcerned sample is not touched,
  and a batch without concerned samples runs the plain path.
- HOW: each concerned prompt gets an alternative to listen to: the prompt with the anchor in the concept's place,
  where a word means the concept (score >= ``means``); else, where a word only implies it, the prompt's embeddings
  less what they have of the direction from anchor to concept. In attention the positives then give

      out = (1 - s m) * attn(q, K_prompt, V_prompt) + s m * attn(q, K_alt, V_alt)

  with K_alt and V_alt computed once per batch, since they depend on the text alone. s is 1 where an anchor takes the
  concept's place, and 1 + ``push`` where nothing does or the concept is only implied: what the picture has begun to
  draw must then be driven out. On the diorama (gun, no anchor) leak falls from .25 to 0, from .95 to 0 where implied.
- WHERE (``mask.py``): for the first ``look`` share of the steps m is 0: the picture finds its layout as ever, and shows
  where it listens to the concept's words. From then on m is that place, kept up to date with where the alternative's
  stand-in is listened to. Outside it the picture goes on listening to the prompt as it was.

Chosen by ``jobs/ablate_cease.py`` on the diorama ({cat, gun, wine, house}, 56 pictures of 10 steps that show what they
ask for unerased, detector A; "other" is the second object of a scene, "apart" the PSNR outside the concept's place):

                         leak: plain, synonym, implied   other   apart     apart > 20 dB
    as it is                   .00    .00      .00        .96    26.2 dB       .88
    WHERE: everywhere          .04    .00      .00        .79    20.1 dB       .50
    HOW: value projection      .54    .75      .42       1.00    30.4 dB       .96
    HOW: embeddings (*)        .00    .00      .00        .38    16.2 dB       .25

(*) less the concept's direction, with ``push``, also where a word means the concept: it drives out the rest of a scene
along with it, so it is kept for what is only implied, where there is no word to replace. Values alone keep a picture
best and erase least. Switching everywhere from the first step redraws the scene, and leaks no less. With ``look`` at .3
unlisted synonyms began to leak (10 % of 20 pictures of 16 steps, cat to dog).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pipeline.erasure.alternatives import encode_texts, replaced, swap_pooled
from pipeline.erasure.concept import Concept
from pipeline.erasure.gate import EVERYDAY, Hit, TextGate
from pipeline.erasure.mask import CELLS, PlaceMask
from pipeline.erasure.method import Method, Prompts, Sampling, Steering
from pipeline.erasure.tokens import end_of_text, token_spans
from pipeline.errors import ConfigError
from pipeline.models.attention import Layer, split_heads
from pipeline.models.family import TextStream
from pipeline.models.load import Model


@dataclass(kw_only=True)
class CEASEOptions:
    """Scores are cosines in 0..1 (see ``gate.py``), ``look`` and ``gather`` shares of the steps."""

    gate: float = 0.55  # a prompt with a word of at least this score is concerned
    means: float = 0.85  # from here on a word means the concept, below it only implies it
    always_on: bool = False  # treat every prompt as concerned, whatever its score
    push: float = 1.0  # how far beyond the alternative to go, where nothing pulls towards an anchor
    look: float = 0.15  # until then only maps are gathered; 0, for models of few steps: the first switches everywhere
    gather: float = 0.6  # maps are gathered until then; later ones only redraw what is already there
    threshold: float = 0.5  # of the map's range, above which a position belongs to the concept

    def __post_init__(self) -> None:
        for name in ("gate", "means", "look", "gather", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 to 1")


@dataclass(frozen=True)
class Alternative:
    """What a concerned sample listens to instead: ``embeds (T, D)``, and which tokens mark the place, ``(T,)`` of 0/1:
    ``tokens`` in the prompt as it is, ``stand_in`` in the alternative. ``strength`` is s of the formula."""

    embeds: Tensor
    tokens: Tensor
    stand_in: Tensor
    strength: float


class CEASE(Method):
    """Steers cross-attention towards the anchor, where and when the concept is in play."""

    Options = CEASEOptions
    requires = frozenset({"cross_attention"})
    options: CEASEOptions

    def __init__(self, model: Model, concepts: Sequence[Concept], options: CEASEOptions, *, label: str):
        super().__init__(model, concepts, options, label=label)
        self.stream: TextStream = model.family.streams[0]
        for concept in concepts:
            for word in concept.words:
                if not token_spans(self.stream, word, [(0, len(word))])[0]:
                    raise ConfigError(f"{label}: the word {word!r} of concept {concept.name!r} tokenises to nothing")
        self.gate = TextGate(model.family, concepts)
        self.directions = {concept.name: self._direction(concept) for concept in concepts}

    def condition(self, prompts: Prompts) -> Prompts:
        """Swap the pooled vector of concerned prompts, where the architecture has one (SDXL): it has no place."""
        if prompts.positive.pooled is None:
            return prompts
        hits = [self.gate.hits(text, self.options.gate) for text in prompts.texts]
        return swap_pooled(self.model.family, prompts, hits, self.options.means)

    def concerns(self, text: str) -> bool:
        """Tell whether a sample of prompt *text* is steered."""
        return self.options.always_on or bool(self.gate.hits(text, self.options.gate))

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering | None:
        options = self.options
        hits = {i: self.gate.hits(text, options.gate) for i, text in enumerate(prompts.texts)}
        rows = [i for i in hits if hits[i] or options.always_on]
        scores = torch.tensor([self.gate.scores(text) for text in prompts.texts], dtype=torch.float32)
        gates = {f"{self.label}:{c.name}": scores[:, k] for k, c in enumerate(self.concepts)}
        if not rows:
            idle = Steering()
            idle.gates = gates
            return idle
        alternatives = self._alternatives([prompts.texts[i] for i in rows], [hits[i] for i in rows], prompts, rows)
        steering = self._steering(rows, alternatives, prompts, sampling)
        steering.gates = gates
        return steering

    def explain(self, text: str) -> list[str]:
        hits = self.gate.hits(text, self.options.gate)
        lines = [
            f"“{text[hit.start : hit.stop]}” {'means' if hit.score >= self.options.means else 'implies'} "
            f"{hit.concept.name} ({hit.score:.2f})"
            for hit in hits
        ]
        meant = [hit for hit in hits if hit.score >= self.options.means]
        if meant:
            lines.append(f"inside its place the picture listens to “{' '.join(replaced(text, meant)[0].split())}”")
        if len(meant) < len(hits) or (self.options.always_on and not hits):
            lines.append("inside its place the concept's direction is taken from the prompt's embeddings")
        return lines or [f"no word comes near enough to a concept (gate {self.options.gate}): left alone, bit for bit"]

    def _steering(self, *batch: Any) -> "CEASESteering":
        return CEASESteering(self, *batch)

    def _alternatives(
        self, texts: list[str], hits: list[list[Hit]], prompts: Prompts, rows: list[int]
    ) -> list[Alternative]:
        meant = [[hit for hit in found if hit.score >= self.options.means] for found in hits]
        others = [replaced(text, found) for text, found in zip(texts, meant, strict=True)]
        encoded = encode_texts(self.model.family, [other for other, _ in others]).embeds
        alternatives = []
        for i, (text, found, named) in enumerate(zip(texts, hits, meant, strict=True)):
            other, marks = others[i]
            # Where no word means a concept, the prompt's own embeddings (as other methods left them) are the start.
            embeds = encoded[i] if named else prompts.positive.embeds[rows[i]]
            implied = {hit.concept.name for hit in found if hit not in named}
            if self.options.always_on:
                implied |= {concept.name for concept in self.concepts} - {hit.concept.name for hit in named}
            for name in sorted(implied):
                embeds = self._less(embeds, name, end_of_text(self.stream, other))
            tokens = self._marked(text, [(hit.start, hit.stop) for hit in found])
            pulled = not implied and all(hit.concept.anchor for hit in named)
            strength = 1.0 if pulled else 1.0 + self.options.push
            alternatives.append(Alternative(embeds, tokens, self._marked(other, marks), strength))
        return alternatives

    def _marked(self, text: str, spans: list[tuple[int, int]]) -> Tensor:
        """Return 1 at the tokens of *spans*, 0 elsewhere, ``(T,)``; all words where there is no span."""
        marked = torch.zeros(self.stream.offset + self.stream.length)
        for tokens in token_spans(self.stream, text, spans):
            marked[list(tokens)] = 1
        if not marked.any():
            marked[self.stream.offset + 1 : end_of_text(self.stream, text)] = 1
        return marked.to(self.model.device)

    def _direction(self, concept: Concept) -> tuple[Tensor, Tensor]:
        """Return embeddings ``(3, D)``, at name, end of text and padding, of the concept and of what replaces it."""
        anchors = [concept.anchor] if concept.anchor else list(EVERYDAY)
        return self._kinds(concept.name), torch.stack([self._kinds(anchor) for anchor in anchors]).mean(0)

    def _kinds(self, word: str) -> Tensor:
        text = f"a {word}"
        embeds, end = self.model.family.encode([text]).embeds[0].float(), end_of_text(self.stream, text)
        return torch.stack([embeds[end - 1], embeds[end], embeds[end + 1 :].mean(0)])

    def _less(self, embeds: Tensor, name: str, end: int) -> Tensor:
        """Take from *embeds* x ``(T, D)`` what lies beyond the anchor a in the concept's direction u: relu((x-a)u)u."""
        concept, anchor = self.directions[name]
        u = torch.nn.functional.normalize(concept - anchor, dim=-1)  # (3, D)
        kind = torch.zeros(len(embeds), dtype=torch.long, device=embeds.device)
        kind[end], kind[end + 1 :] = 1, 2
        beyond = ((embeds.float() - anchor[kind]) * u[kind]).sum(-1, keepdim=True).relu()
        beyond[0] = 0  # the start token is the same in every prompt
        return (embeds.float() - beyond * u[kind]).to(embeds.dtype)


class CEASESteering(Steering):
    """Switches the attention of the samples ``rows`` of one batch."""

    def __init__(
        self,
        method: CEASE,
        rows: Sequence[int],
        alternatives: Sequence[Alternative],
        prompts: Prompts,
        sampling: Sampling,
    ):
        super().__init__()
        self.method = method
        options = method.options
        self.samples, self.members = len(prompts), list(rows)
        samples = self.samples
        first = samples if prompts.negative is not None else 0  # where the positives begin among the denoiser's rows
        device = prompts.positive.embeds.device
        # All of a batch is the commonest case, and a slice of it is a view where a list of rows would be a copy.
        every = len(rows) == samples
        self.rows = (
            slice(first, first + samples) if every else torch.tensor([first + row for row in rows], device=device)
        )
        self.embeds = torch.stack([alternative.embeds for alternative in alternatives])
        self.tokens = torch.stack([alternative.tokens for alternative in alternatives])
        self.stand_in = torch.stack([alternative.stand_in for alternative in alternatives])
        self.strength = torch.tensor([a.strength for a in alternatives], device=device).view(-1, 1, 1, 1)
        self.place = PlaceMask(len(rows), sampling.latent_shape, options.threshold, device)
        self.options = options
        self.steps = sampling.steps
        self.keys: dict[int, Tensor] = {}  # of the prompts, by layer
        self.alternative: dict[int, tuple[Tensor, Tensor]] = {}
        self.looks = self.gathers = True

    def begin(self, step: int, timestep: Tensor) -> None:
        done, look = step / self.steps, self.options.look
        self.looks = self.steps > 1 and look > 0 and (step == 0 or done < look)
        if step == 0:
            self.place.everywhere()  # before the first step there is no map to switch by
        elif not self.looks and self.gathers:
            self.place.update()
        self.gathers = self.looks or step == 0 or done < self.options.gather

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        attn = layer.module
        self.keys[layer.index] = key[self.rows]
        self.alternative[layer.index] = (
            split_heads(attn.to_k(self.embeds), layer.heads),
            split_heads(attn.to_v(self.embeds), layer.heads),
        )
        return key, value

    def blend(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        key, _ = self.alternative[layer.index]
        query = query[self.rows]  # (rows, heads, N, d)
        positions = query.shape[2]
        if self.gathers and positions <= CELLS:
            self.place.add(query, self.keys[layer.index], self.tokens)
            self.place.add(query, key, self.stand_in)
        if self.looks:
            return output
        switched = self.switched(layer, query)
        weight = self.strength.to(switched.dtype) * self.place.at(positions, switched.dtype)
        if isinstance(self.rows, slice):
            output[self.rows].lerp_(switched, weight)
        else:
            output[self.rows] = torch.lerp(output[self.rows], switched, weight)
        return output

    def masks(self) -> dict[str, Tensor]:
        if self.looks:  # nothing is switched yet: what was gathered so far, as it would be switched
            self.place.update()
        masks = torch.zeros((self.samples, *self.place.size), device=self.place.sum.device)
        masks[self.members] = self.place.mask[:, 0]
        return {"looks" if self.looks else "switches": masks}

    def switched(self, layer: Layer, query: Tensor) -> Tensor:
        """Return what listening to the alternative gives, ``(rows, heads, N, d)``."""
        return scaled_dot_product_attention(query, *self.alternative[layer.index])
