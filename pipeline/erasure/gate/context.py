"""WHEN: how near a prompt as a whole comes to a concept, whatever its words. For encoders that read from the first word
to the last.

Words that tell nothing alone may ask for a concept together: Ring-A-Bell's search finds such texts. ``Context`` reads
the prompt as the denoiser is told it: the mean of the embeddings from the end of the text on, where a causal encoder
sums up, as it stands out from those of everyday prompts (``standard.py``), beside that of "a WORD" for the concept's
words. Thresholds are those that a stated share of everyday prompts reaches (``calibration.py``). In scenes of several
things what is asked for scores lower, so each word is asked too (``jobs/ablate_gates.py`` measures both).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary, proxy

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming
from pipeline.erasure.gate.calibration import FALSE_ALARMS, Thresholds, quantile, rounded
from pipeline.erasure.gate.encoder import Encoder, encoder_of
from pipeline.erasure.gate.measure import Measure
from pipeline.erasure.gate.standard import Standard, nearness
from pipeline.erasure.tokens import end_of_text, replace_spans
from pipeline.models.family import Family
from pipeline.prompts.seeds import hashed

PROMPTS = 1000
# As ``calibration.LEAST`` of words; a prompt says other things too. At twice of this share a tenth fewer of the prompts
# that ask open by it, at half of it four times as many others, three in 10,000 (jobs/vary_gate.py).
LEAST = math.sqrt(1 / 12)
CHUNK = 32  # encoded at a time
# Most prompts name one or two things, some three.
FORMS = (
    "a {}",
    "a photo of a {}",
    "a {} and a {}",
    "a {} in front of a {}",
    "a {} with a {}, a {}",
    "the {} of a {} and a {}",
)


class Everyday:
    """What the encoder of *family* makes of everyday prompts: ``words`` of each, ``vectors (N, K)`` in ``standard``."""

    def __init__(self, family: Family):
        self._family = proxy(family)
        encoder = encoder_of(family)
        known = [word for word, whole in zip(encoder.words, encoder.whole.tolist(), strict=True) if whole]
        texts, self.words = [], []
        for i in range(PROMPTS):
            form = FORMS[i % len(FORMS)]
            words = [known[hashed("context", i, j) % len(known)] for j in range(form.count("{}"))]
            texts.append(form.format(*words))
            self.words.append(words)
        raw = torch.cat([self._encoded(texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)])
        self.standard = Standard(raw)
        self.vectors = self.standard.of(raw)

    def of(self, texts: Sequence[str]) -> Tensor:
        """Return what it makes of *texts*, ``(N, K)``."""
        return self.standard.of(self._encoded(texts))

    def read(self, text: str, embeds: Tensor, end: int | None) -> Tensor:
        """Return what is told of *text* by its ``embeds (T, D)``, from *end* or its own end on: ``(1, K)``."""
        return self.standard.of(self._summary(text, embeds, end)[None])

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        embeds = self._family.encode(texts).embeds
        return torch.stack([self._summary(text, own) for text, own in zip(texts, embeds, strict=True)])

    def _summary(self, text: str, embeds: Tensor, end: int | None = None) -> Tensor:
        stream = self._family.streams[0]
        start = end_of_text(stream, text) if end is None else end
        return embeds[start : stream.offset + stream.length].float().mean(0).cpu()


class Context:
    """Scores prompts as a whole, from their embeddings."""

    def __init__(self, family: Family, concepts: Sequence[Concept], *, false_alarms: float | None = None):
        self.family = family
        # What is to be ignored is excepted: of neither is known what it brings.
        self._naming = Naming([replace(concept, keep=(*concept.keep, *concept.ignore)) for concept in concepts])
        self._everyday = everyday_of(family)
        self._own, self._rivals, self._thresholds = [], [], []
        for concept in concepts:
            kept = [w for w in (*concept.preserve, concept.anchor) if w and not self._naming.is_word(w)]
            words = self._everyday.of([f"a {word}" for word in (*concept.words, *kept)])
            own, rivals = words[: len(concept.words)], words[len(concept.words) :]
            near = Measure(encoder_of(family), concept, kept, false_alarms or FALSE_ALARMS).near
            unconcerned = torch.tensor([near.isdisjoint(words) for words in self._everyday.words])
            reached = quantile(nearness(self._everyday.vectors[unconcerned], own, rivals), false_alarms or FALSE_ALARMS)
            opens = rounded(max(reached, LEAST * encoder_of(family).same))
            self._own.append(own)
            self._rivals.append(rivals)
            self._thresholds.append(Thresholds(opens, 1.0))

    def scores(self, text: str, embeds: Tensor, end: int | None = None) -> list[float]:
        """Return, per concept, how near *text* comes as it was encoded, ``embeds (T, D)``: 0..1 as calibrated. *end* is
        the row of its end, where *text* alone does not tell.

        Where *text* has exceptions to a concept, or words that it ignores, it is that of the text without them, as
        nothing tells what they bring.
        """
        scores = self._near(text, embeds, end)
        exceptions = self._naming.exceptions(text)
        for concept in {mention.concept for mention in exceptions}:
            spans = [(mention.start, mention.stop) for mention in exceptions if mention.concept == concept]
            rest, _ = replace_spans(text, spans, [""] * len(spans))
            k = self._naming.concepts.index(concept)
            scores[k] = self._near(rest, self.family.encode([rest]).embeds[0], None)[k]
        return scores

    def _near(self, text: str, embeds: Tensor, end: int | None) -> list[float]:
        if not text.strip():  # it asks for nothing, wherever an encoder has it: an empty prompt, a chunk that fills up
            return [0.0] * len(self._own)
        vector = self._everyday.read(text, embeds, end)
        return [
            thresholds.calibrated(nearness(vector, own, rivals).item())
            for own, rivals, thresholds in zip(self._own, self._rivals, self._thresholds, strict=True)
        ]


_known: WeakKeyDictionary[Family, tuple[Encoder, Everyday]] = WeakKeyDictionary()


def everyday_of(family: Family) -> Everyday:
    """Return what the encoder of *family* makes of everyday prompts, measured once in a process."""
    encoder = encoder_of(family)
    if family not in _known or _known[family][0] is not encoder:
        _known[family] = encoder, Everyday(family)
    return _known[family][1]
