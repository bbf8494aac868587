"""CEASE (Concept Erasure via Adaptive Switching): training-free, inside cross-attention, one denoiser forward a step.

Of the method of that name only a short description is public: spatially-adaptive switching of the inference process,
because a concept's features are localised in the cross-attention maps. This is our own design in that spirit:

- WHEN (``gate/text.py``): per sample, from the text alone, before the first step: a word that comes near the concept
  (``unlisted``), or the prompt as a whole (``context``). An unconcerned sample is not touched, and a batch without
  concerned samples runs the plain path. ``always_on`` concerns all; ``attention`` asks the picture too (``hearing``).
- HOW: each concerned prompt gets an alternative to listen to: the prompt with the anchor in the concept's place,
  where a word means the concept; else, where a word only implies it, the prompt's embeddings
  less what they have of the direction from anchor to concept. In attention the positives then give

      out = (1 - s m) * attn(q, K_prompt, V_prompt) + s m * attn(q, K_alt, V_alt)

  with K_alt and V_alt computed once per batch, since they depend on the text alone. s is 1 where an anchor takes the
  concept's place, and 1 + ``push`` where nothing does or the concept is only implied: what the picture has begun to
  draw must then be driven out.
- WHERE (``mask.py``): for the first ``look`` share of the steps m is 0: the picture finds its layout as ever, and shows
  where it listens to the concept's words. From then on m is that place, kept up to date with where the alternative's
  stand-in is listened to. Outside it the picture goes on listening to the prompt as it was. Words that only imply a
  concept look at other things as well, so its share of their peak is lower (``implied_threshold``). For a concept that
  is ``everywhere``, as a style is, m is 1 from the first step on.

Why each part is as it is, with figures: ``pipeline/erasure/README.md``; what was tried besides, and is no part of it:
``pipeline/evaluation/results/LOG.md``. What a picture shows and nothing in its prompt asks for escapes every gate of
the text. Where several things of a kind are erased together, one of them may come in the place of another, because
beyond the alternative lies what is least like the one and yet of its kind; after UCE, which sends all of them away, it
hardly does, so the two together are the default.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.config.sections.generation import Compile, GenerationConfig
from pipeline.erasure.cease.alternatives import Directions, encode_together, implied_by, marked, replaced, swap_pooled
from pipeline.erasure.cease.hearing import ConceptDirections, Listener
from pipeline.erasure.cease.mask import check_look
from pipeline.erasure.cease.options import CEASEOptions
from pipeline.erasure.cease.steering import Alternative, CEASESteering, HeardSteering, WatchfulSteering
from pipeline.erasure.gate.calibration import OPENS
from pipeline.erasure.gate.context import Context
from pipeline.erasure.gate.text import Hit, TextGate
from pipeline.erasure.method import Method, Prompts, Sampling, Steering
from pipeline.errors import ConfigError
from pipeline.models.family import Family
from pipeline.models.load import Model
from pipeline.models.reading import Reader, Reading, RowKind, whole_reader
from pipeline.statistics import rounded_down

KNOWN = 1 << 17  # prompts whose scores are remembered: more than a shard may have


class CEASE(Method):
    """Steers cross-attention towards the anchor, where and when the concept is in play."""

    Options = CEASEOptions
    once = "each would draw what another takes away"
    requires = frozenset({"cross_attention"})
    chunks = True
    options: CEASEOptions

    def __init__(self, model: Model, concepts: Sequence[Concept], options: CEASEOptions, *, label: str):
        super().__init__(model, concepts, options, label=label)
        self.gate = self.text_gate(model.family, concepts, options)
        self.context = None
        if options.context:
            self.context = Context(model.family, concepts, false_alarms=options.false_alarms)
        watches = options.attention < 1 and not options.always_on
        self.listened = ConceptDirections(model.family, concepts) if watches else None
        self.directions = Directions(model.family, concepts)
        # How near prompts as a whole come to each concept, those last that were asked after last.
        self._known: OrderedDict[tuple[str, Reading], list[float]] = OrderedDict()

    @classmethod
    def text_gate(cls, family: Family, concepts: Sequence[Concept], options: CEASEOptions) -> TextGate:
        return TextGate(family, concepts, false_alarms=options.false_alarms, unlisted=options.unlisted)

    @classmethod
    def check_sampling(cls, options: Any, generation: GenerationConfig) -> None:
        super().check_sampling(options, generation)
        check_look(options.look, generation.steps)
        if options.attention < 1 and not options.always_on and generation.steps == 1:
            raise ConfigError("attention is heard after the first of two steps or more; set options.attention to 1")
        if options.attention < 1 and not options.always_on and generation.compile not in (Compile.none, Compile.auto):
            raise ConfigError(
                f"it listens to attention in each layer, which cannot be compiled, and generation.compile is "
                f"{generation.compile}; set that to none, or options.attention to 1"
            )

    def condition(self, prompts: Prompts) -> Prompts:
        """Swap the pooled vector of concerned prompts, where the architecture has one (SDXL): it has no place.

        What brings concepts into play is found out here, for ``steer`` too, where the device would be waited for.
        """
        hits, _ = self._hits(prompts)
        if prompts.positive.pooled is None:
            return prompts
        if self.options.always_on:
            for found in hits:
                told = {hit.concept.name for hit in found}
                found += [Hit(concept, 0, 0, 0.0) for concept in self.concepts if concept.name not in told]
        return swap_pooled(self.model.family, prompts, hits)

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering:
        options = self.options
        hits, scores = self._hits(prompts)
        rows = [i for i, found in enumerate(hits) if found or options.always_on]
        parts: list[Steering] = []
        if rows:
            alternatives = self._alternatives([prompts.texts[i] for i in rows], [hits[i] for i in rows], prompts, rows)
            parts.append(self._steering(rows, alternatives, prompts, sampling))
        steering: Steering = parts[0] if parts else Steering()
        if self.listened is not None:
            steering = self._watchful(self.listened, hits, prompts, sampling, parts)
        steering.gates |= scores
        return steering

    def _hits(self, prompts: Prompts) -> tuple[list[list[Hit]], dict[str, Tensor]]:
        """Return what brings concepts into play in each prompt, and how nearly: gates ``(B,)`` by name."""
        reader = prompts.reader(self.model.family)
        asked = [(text, prompts.reading) for text in prompts.texts]
        for key, embeds in zip(asked, prompts.positive.embeds, strict=True):
            if key not in self._known:
                self._known[key] = self._whole(key[0], embeds, reader)
            self._known.move_to_end(key)
        whole = [self._known[key] for key in asked]
        # Of the shard at hand nothing is forgotten: what further steps have made of its embeddings has other scores.
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        words = [reader.words(text) for text in prompts.texts]
        hits = [self._found(text, scores) for text, scores in zip(words, whole, strict=True)]
        gates = self._gates(":{}", [self.gate.scores(text) for text in words])
        if self.context is not None:
            gates |= self._gates(":{} in context", whole)
        return hits, gates

    def _gates(self, name: str, scores: list[list[float]]) -> dict[str, Tensor]:
        columns = torch.tensor(scores, dtype=torch.float32)
        return {self.label + name.format(c.name): columns[:, k] for k, c in enumerate(self.concepts)}

    def _whole(self, text: str, embeds: Tensor, reader: Reader) -> list[float]:
        """Return how near *text* as a whole comes to each concept; nothing where that is not asked.

        To a text encoder each chunk is a text of its own: that of them counts which comes nearest.
        """
        if self.context is None:
            return []
        if reader.reading.plain:
            return self.context.scores(text, embeds)
        scores, length = [], reader.streams[0].length
        for k, said in enumerate(reader.chunk_texts(text)):
            chunk = slice(k * length, (k + 1) * length)
            end = int((reader.kinds(text)[chunk] == RowKind.end).nonzero())
            scores.append(self.context.scores(said, embeds[chunk], end))
        return [max(column) for column in zip(*scores, strict=True)]

    def _found(self, text: str, whole: list[float]) -> list[Hit]:
        """Return the words that bring concepts into play, then the concepts that only *text* as a whole comes near."""
        words = self.gate.hits(text)
        told = {hit.concept.name for hit in words}
        return words + [
            Hit(concept, 0, 0, 0.0)  # as a word that implies the concept, at no place in the prompt
            for concept, score in zip(self.concepts, whole, strict=False)
            if score >= OPENS and concept.name not in told
        ]

    def opens(self, gate: str) -> float | None:
        if self.options.always_on:
            return 0.0
        return self.options.attention if gate.endswith(" heard") else OPENS

    def explain(self, text: str) -> list[str]:
        reader = whole_reader(self.model.family, text)
        whole = self._whole(text, reader.encode([text]).embeds[0], reader)
        hits = self._found(text, whole)
        meant = [hit for hit in hits if hit.meant]
        lines = []
        for hit in hits:
            if hit.start < hit.stop:
                verb = "means" if hit in meant else "implies"
                lines.append(f"“{text[hit.start : hit.stop]}” {verb} {hit.concept.name} ({rounded_down(hit.score)})")
            else:
                score = whole[self.concepts.index(hit.concept)]
                lines.append(f"the prompt as a whole comes near {hit.concept.name} ({rounded_down(score)})")
        everywhere = any(hit.concept.everywhere for hit in hits)
        where = "all over the picture" if everywhere else "inside its place"
        if meant:
            lines.append(f"{where} the picture listens to “{' '.join(replaced(reader, text, meant)[0].split())}”")
        named = {hit.concept.name for hit in meant}
        acted_on = {c.name for c in self.concepts} if self.options.always_on else {hit.concept.name for hit in hits}
        if acted_on - named:
            others = ", ".join(sorted(acted_on - named))
            lines.append(f"{where} the direction of {others} is taken from the prompt's embeddings")
        if not hits:
            left = "left alone, bit for bit"
            if self.options.always_on:
                left = "switched all the same (always_on)"
            elif self.listened is not None:
                left = f"left alone unless a concept is heard in the first step (attention {self.options.attention})"
            lines.insert(0, f"no word comes near enough to a concept (gate {OPENS}): {left}")
        return lines

    def _steering(self, *batch: Any) -> CEASESteering:
        return CEASESteering(self.options, *batch)

    def _watchful(
        self,
        listened: ConceptDirections,
        hits: Sequence[list[Hit]],
        prompts: Prompts,
        sampling: Sampling,
        gated: Sequence[Steering],
    ) -> WatchfulSteering:
        """Return *gated* together with a watch on what no text told."""
        told = [{hit.concept.name for hit in found} for found in hits]
        known = torch.tensor([[c.name in names for c in self.concepts] for names in told])

        def late(found: Tensor, listener: Listener) -> Steering:
            rows = [i for i, concepts in enumerate(found.tolist()) if any(concepts)]
            heard = [
                [Hit(c, 0, 0, 0.0) for c, is_heard in zip(self.concepts, found[i], strict=True) if is_heard]
                for i in rows
            ]
            alternatives = self._alternatives([prompts.texts[i] for i in rows], heard, prompts, rows)
            return HeardSteering(listener, found.float(), self.options, rows, alternatives, prompts, sampling)

        listener = Listener(listened, sampling.latent_shape)
        first = len(prompts) if prompts.negative is not None else 0
        names = [f"{self.label}:{c.name} heard" for c in self.concepts]
        return WatchfulSteering(listener, self.options.attention, names, known, first, gated, late)

    def _alternatives(
        self, texts: list[str], hits: list[list[Hit]], prompts: Prompts, rows: list[int]
    ) -> list[Alternative]:
        meant = [[hit for hit in found if hit.meant] for found in hits]
        reader = prompts.reader(self.model.family)
        others = [replaced(reader, text, found) for text, found in zip(texts, meant, strict=True)]
        encoded = encode_together(reader, [other for other, _ in others])
        alternatives = []
        for i, (text, found, named) in enumerate(zip(texts, hits, meant, strict=True)):
            other, marks = others[i]
            # Where no word means a concept, the prompt's own embeddings (as other methods left them) are the start.
            start, row = (encoded, i) if named else (prompts.positive, rows[i])
            embeds, mask = start.embeds[row], None if start.mask is None else start.mask[row]
            implied = set(implied_by(found))
            if self.options.always_on:
                implied |= {concept.name for concept in self.concepts} - {hit.concept.name for hit in named}
            embeds = self.directions.less(embeds, sorted(implied), reader, other)
            placed = all(hit.start < hit.stop for hit in found)  # else all words count, for prompt and alternative
            tokens = marked(reader, text, [(hit.start, hit.stop) for hit in found] if placed else [])
            pulled = not implied and all(hit.concept.anchor for hit in named)
            strength = 1.0 if pulled else 1.0 + self.options.push
            stand_in = marked(reader, other, marks if placed else [])
            acted_on = implied | {hit.concept.name for hit in named}
            everywhere = any(concept.everywhere for concept in self.concepts if concept.name in acted_on)
            threshold = self.options.implied_threshold if implied else self.options.threshold
            alternatives.append(Alternative(embeds, mask, tokens, stand_in, strength, threshold, everywhere))
        return alternatives
