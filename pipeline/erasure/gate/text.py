"""WHEN: how near the words of a prompt come to a concept, in the text encoder's own eyes. Costs no denoiser forward.

A listed word counts 1: ``pipeline.concepts.mentions`` finds it, the same for every encoder. So do words that pictures
proved. Of all others the encoder proposes and the dictionary decides, or, where it knows a word for something else or
not at all, a score.

- **Score.** A word w comes near by cos(z(w), z(c)), z(w) being how the embedding of "a w" stands out from those of
  everyday words (``standard.py``), which is the same however an encoder scales its dimensions. Neighbours that are
  listed, and siblings that the dictionary has, are rivals: where w comes nearer to a rival r it counts less, by what it
  comes nearer, and at most by what r explains of it, cos(z(w), z(r)) cos(z(r), z(c)). A tiger is no cat for looking
  like one; a war may show a gun although it shows a bomb as surely.
- **Threshold.** For each concept, and for words read whole and in pieces apart, that which the stated share of everyday
  words reaches that have nothing to do with it (``calibration.py``). Scores are given in its measure: the gate opens at
  ``OPENS``, a word means the concept from ``MEANS`` on and only implies it below.
- **Dictionary.** A word that by its most frequent sense is the concept or a kind of it means it where it is among the
  nearest words (``measure.CANDIDATES``), which tells which sense of the concept's name is asked for.
- **Spelling.** So does a word that neither dictionary nor vocabulary has and that may be a listed one misspelt, or
  joined to another (``pipeline.concepts.spelling``).

Embeddings of the whole prompt tell less: at the end of the text they are diluted by what else the prompt names, at each
token in its context by its neighbours. (What is scored how on the diorama is in
``pipeline/evaluation/results/LOG.md``.) Words that tell nothing alone may ask for a concept together: ``context.py``.

Every word is encoded alone, as a batch of one, and remembered: its score does not depend on what came before. Scores
and thresholds are rounded, so that the last bits of a sum decide nothing.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.concepts.concept import Concept
from pipeline.concepts.function_words import FUNCTION_WORDS
from pipeline.concepts.mentions import Mention, Naming
from pipeline.concepts.normal import Gap, Kind, Piece, normal, pieces
from pipeline.erasure.gate.calibration import FALSE_ALARMS, MEANS, OPENS
from pipeline.erasure.gate.encoder import encoder_of
from pipeline.erasure.gate.measure import Measure
from pipeline.models.family import Family

LEAST = 3  # letters of a word: shorter ones are articles and prepositions


@dataclass(frozen=True)
class Hit:
    """Characters ``start:stop`` of a prompt that bring a concept into play, and how surely (``score`` in 0..1).

    ``plural`` says that they are a listed word in the plural, ``meant`` that they mean the concept and do not only
    imply it.
    """

    concept: Concept
    start: int
    stop: int
    score: float
    plural: bool = False
    meant: bool = False


class _Scored(NamedTuple):
    """Characters ``start:stop`` of a text and their scores for each concept."""

    start: int
    stop: int
    scores: tuple[float, ...]
    plural: bool = False
    implied: bool = False


class TextGate:
    """Scores prompts against concepts. Without *unlisted* only words that are listed or proved count."""

    def __init__(
        self,
        family: Family,
        concepts: Sequence[Concept],
        *,
        false_alarms: float | None = None,
        unlisted: bool = True,
    ):
        self.concepts = tuple(concepts)
        self._naming = Naming(concepts, proven=True)
        self._implied = [Naming.of_words(concept.implied) for concept in concepts]
        self._ignored = [Naming.of_words(concept.ignore) for concept in concepts]
        self._scores: dict[str, tuple[float, ...]] = {}
        self._measures: list[Measure] = []
        if unlisted:
            self._encoder = encoder_of(family)
            for c in concepts:
                kept = [word for word in (*c.preserve, c.anchor) if word and not self._naming.names(word)]
                self._measures.append(Measure(self._encoder, c, kept, false_alarms or FALSE_ALARMS))
        phrases = [[kind for kind in measure.kin.kinds if " " in kind] for measure in self._measures]
        self._phrases = Naming.of_words(list(dict.fromkeys(phrase for each in phrases for phrase in each)))

    def hits(self, text: str) -> list[Hit]:
        """Return what in *text* opens the gate, in the order of the text, for each word the nearest first.

        A word that means a concept means the one it comes nearest to, and no other; else it may imply several.
        """
        hits = []
        for found in self._scored(text):
            near = [
                Hit(c, found.start, found.stop, score, found.plural, score >= MEANS and not found.implied)
                for c, score in zip(self.concepts, found.scores, strict=True)
                if score >= OPENS
            ]
            near.sort(key=lambda hit: -hit.score)
            hits += near[:1] if near and near[0].meant else near
        return sorted(hits, key=lambda hit: hit.start)

    def scores(self, text: str) -> list[float]:
        """Return, per concept, the score of the nearest word of *text*, 0..1."""
        words = [found.scores for found in self._scored(text)]
        return [max([0.0, *(scores[i] for scores in words)]) for i in range(len(self.concepts))]

    def candidates(self, concept: int) -> list[str]:
        """Return the everyday words that come nearest to the concept of this number, the nearest first; none where only
        listed and proved words count."""
        return self._measures[concept].candidates if self._measures else []

    def _scored(self, text: str) -> Iterator[_Scored]:
        """Yield the words of *text* and their scores for each concept: listed and proved ones, then all others.

        A word that is said to imply a concept scores 1 for it and goes on to imply it, whatever it scores; to others it
        comes as near as any word. Within an
        exception to a concept, and in a word that it ignores, nothing comes near it.
        """
        listed = self._naming.mentions(text)
        for mention in listed:
            scores = tuple(float(c is mention.concept) for c in self.concepts)
            yield _Scored(mention.start, mention.stop, scores, mention.plural)
        exceptions = [(mention.concept, mention) for mention in self._naming.exceptions(text)]
        exceptions += [
            (c, m) for c, naming in zip(self.concepts, self._ignored, strict=True) for m in naming.mentions(text)
        ]
        implied = [
            [
                m
                for m in naming.mentions(text)
                if not any(c is k and _overlap((m.start, m.stop), e) for k, e in exceptions)
            ]
            for c, naming in zip(self.concepts, self._implied, strict=True)
        ]
        for span in sorted({(m.start, m.stop) for mentions in implied for m in mentions}):
            if not any(_overlap(span, mention) for mention in listed):
                scores = tuple(float(any((m.start, m.stop) == span for m in mentions)) for mentions in implied)
                yield _Scored(*span, scores, implied=True)
        exceptions += [(c, m) for c, mentions in zip(self.concepts, implied, strict=True) for m in mentions]  # told
        if not self._measures:
            return
        taken: list[tuple[int, int]] = []
        phrases = [(mention.start, mention.stop) for mention in self._phrases.mentions(text)]
        said = {(start, stop): normal(text[start:stop]) for start, stop in phrases}
        for (start, stop), word in (said | words_of(text)).items():
            if any(_overlap((start, stop), mention) for mention in listed) or any(
                start < end and begin < stop for begin, end in taken
            ):
                continue
            scores = self._score(word)
            excepted = [concept for concept, mention in exceptions if _overlap((start, stop), mention)]
            scores = tuple(0.0 if c in excepted else s for c, s in zip(self.concepts, scores, strict=True))
            if (start, stop) in said:
                if max(scores) < MEANS:
                    continue  # its words are asked one by one
                taken.append((start, stop))
            yield _Scored(start, stop, scores)

    def _score(self, word: str) -> tuple[float, ...]:
        if word not in self._scores:
            (vector,), whole = self._encoder.of([word]), self._encoder.reads_whole(word)
            self._scores[word] = tuple(measure.score(word, vector, whole) for measure in self._measures)
        return self._scores[word]


def words_of(text: str) -> dict[tuple[int, int], str]:
    """Return the words of *text* that are asked, in the normal form, by where they stand.

    They are, of scripts with capitals, those of ``LEAST`` letters and shorter ones before a number ("AK-47", "m16"); of
    others all, which are runs of letters where a script has no blanks. Function words are not.
    """
    words = {}
    parts, i = pieces(text), 0
    while i < len(parts):
        first = i
        while i < len(parts) and parts[i].text[0].isalpha() and (i == first or _goes_on(parts[i - 1], parts[i])):
            i += 1
        word = "".join(part.text for part in parts[first:i])
        if first == i:
            i += 1
        elif word in FUNCTION_WORDS:
            continue
        elif len(word) >= LEAST or word.upper() == word.lower():
            words[parts[first].start, parts[i - 1].stop] = word
        elif i < len(parts) and parts[i].kind is Kind.digits:
            between = text[parts[i - 1].stop : parts[i].start]
            if parts[i].gap is Gap.none or (len(between) == 1 and unicodedata.category(between) == "Pd"):
                words[parts[first].start, parts[i].stop] = f"{word}{'-' if between else ''}{parts[i].text}"
    return words


def _goes_on(before: Piece, piece: Piece) -> bool:
    return piece.kind is before.kind and piece.gap is not Gap.joint


def _overlap(span: tuple[int, int], mention: Mention) -> bool:
    return span[0] < mention.stop and span[1] > mention.start
