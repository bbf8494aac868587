"""How near words come to one concept, in the measure of one text encoder. What it rests on is told in ``text.py``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.concepts.kin import Kin, Relation
from pipeline.concepts.mentions import Naming
from pipeline.concepts.spelling import Spelling
from pipeline.erasure.gate.calibration import MEANS, Thresholds, rounded, thresholds
from pipeline.erasure.gate.encoder import Encoder
from pipeline.erasure.gate.standard import nearness

CANDIDATES = 0.03  # of everyday words, nearest to a concept: nearly all of its kinds are among these


class Measure:
    """Scores words for *concept*; *neighbours* are words of its list that are to be left."""

    def __init__(self, encoder: Encoder, concept: Concept, neighbours: Sequence[str], false_alarms: float):
        self.kin = Kin(concept)
        self._spelling = Spelling(concept.words)
        self._own = encoder.of(concept.words)
        relations = [self.kin.relation(word) for word in encoder.words]
        siblings = torch.tensor([relation is Relation.sibling for relation in relations])
        self._neighbours = encoder.of(neighbours) if neighbours else self._own[:0]
        self._rivals = torch.cat([self._neighbours, encoder.vectors[siblings]])
        near = nearness(encoder.vectors, self._own, self._neighbours)
        self.candidate = rounded(near.quantile(1 - CANDIDATES).item())
        asked = Naming.of_words((*concept.words, *concept.proven, *concept.implied))
        unconcerned = torch.tensor(
            [
                relation not in (Relation.kind, Relation.above) and not asked.is_word(word)
                for word, relation in zip(encoder.words, relations, strict=True)
            ]
        )
        scores = nearness(encoder.vectors, self._own, self._rivals)
        # By whether a word is read whole.
        self.thresholds: dict[bool, Thresholds] = {}
        opens = ~unconcerned
        for whole in (True, False):
            of_kind = encoder.whole == whole
            if of_kind.any():
                self.thresholds[whole] = thresholds(scores[unconcerned & of_kind], false_alarms, encoder.same)
                opens |= of_kind & (scores >= self.thresholds[whole].opens)
        # Everyday words that may ask for the concept.
        self.near = {word for word, is_near in zip(encoder.words, opens.tolist(), strict=True) if is_near}
        # Those and the nearest of all others, the nearest first.
        by_nearness = [encoder.words[i] for i in near.argsort(descending=True, stable=True).tolist()]
        nearest = set(by_nearness[: round(CANDIDATES * len(by_nearness))])
        self.candidates = [word for word in by_nearness if word in nearest or word in self.near]

    def score(self, word: str, vector: Tensor, whole: bool) -> float:
        """Return how near *word* comes, 0..1 as calibrated; *vector* ``(K,)`` is what the encoder makes of it."""
        relation = self.kin.relation(word)
        # A sibling of which the encoder's words know nothing is its own rival.
        rivals = torch.cat([self._rivals, vector[None]]) if relation is Relation.sibling else self._rivals
        score = self.thresholds[whole].calibrated(nearness(vector[None], self._own, rivals).item())
        if (relation is Relation.kind or self._spelling.proposes(word)) and self.is_candidate(vector):
            return max(MEANS, score)
        return score

    def is_candidate(self, vector: Tensor) -> bool:
        """Tell whether what the encoder makes of a word, ``(K,)``, is among the nearest of everyday words."""
        return rounded(nearness(vector[None], self._own, self._neighbours).item()) >= self.candidate
