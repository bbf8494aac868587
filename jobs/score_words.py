"""How far a text encoder's score gets on words whose meaning is known: kinds and synonyms of a concept, and siblings.

    python jobs/score_words.py VECTORS.npz [--encoder NAME] [--results FILE]
    python jobs/score_words.py diorama

VECTORS.npz holds ``names`` (N words), ``synsets`` (WordNet's name of what each means, "cat.n.01") and ``vectors`` ``(N,
D)``, what an encoder makes of "a WORD". Every word that has two or more kinds or synonyms among the others is the
concept in turn, named by that word alone, and the words are the everyday words to which scores are calibrated.
``diorama`` is the encoder of the built-in model with the words of its own world, and the everyday words that it reads
whole beside them; what is a synonym or a sibling is told by its lexicon.

Three scores are compared. ``cosine`` is that of vectors less their mean; ``standard`` is the gate's, which measures how
a word stands out from the others (``pipeline/erasure/gate/standard.py``); ``rivals`` is the same with the dictionary's
siblings of the concept as rivals, by which the gate decides. Candidates are the words that a share of all words comes
no nearer than; "1 in 100" and "1 in 300" are thresholds of each concept that this share of its negatives exceeds,
siblings among them, "1 in 1,000" is one threshold for all concepts.

Then it is decided: by fixed cosines, as a gate without calibration would; by ``rivals`` at one in 1,000; by that and
the dictionary, for which a kind by its most frequent sense is one where it is among the nearest 3 %; and by the gate
itself (``pipeline/erasure/gate/measure.py``) with its own thresholds. Of given vectors nobody knows what the encoder
makes of plurals, so there the gate takes the same thing to have a cosine of 1. Recalls are means over concepts; a
concept with more kinds than 3 % of the words, as a bird among a few hundred names, cannot have them all as candidates.
"""

import argparse
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.refusal import in_one_line
from pipeline.concepts.concept import Concept
from pipeline.concepts.dictionary import Sense, dictionary
from pipeline.concepts.kin import Kin, Relation
from pipeline.config.schema import ModelConfig
from pipeline.diorama.lexicon import FAMILIES, IMPLIED, OBJECTS, SYNONYMS, family_of, plural
from pipeline.erasure.gate.calibration import FALSE_ALARMS, MEANS, OPENS, quantile
from pipeline.erasure.gate.encoder import Encoder, encoder_of
from pipeline.erasure.gate.measure import CANDIDATES, Measure
from pipeline.erasure.gate.standard import Standard, nearness
from pipeline.errors import ConfigError
from pipeline.evaluation.results import add_results_option, machine, write_result
from pipeline.evaluation.words.candidates import encoded
from pipeline.models.load import load_model

LEAST_KINDS = 2  # of a concept
SHARES = (0.01, 0.03, 0.05)
ALARMS = (1 / 100, 1 / 300)
POOLED = 1 / 1000
FIXED = (0.55, 0.85)  # cosines
COMPARED = ("cosine", "standard", "rivals")

Figures = dict[str, Any]


class Given(Encoder):
    """An encoder of which no more is known than its *vectors* ``(N, D)`` of *words*."""

    def __init__(self, words: Sequence[str], vectors: Tensor, same: float = 1.0):
        self.words = tuple(words)
        self.whole = torch.ones(len(words), dtype=torch.bool)
        self.standard = Standard(vectors)
        self.vectors = self.standard.of(vectors)
        self.same = same
        self._rows = {word: i for i, word in enumerate(words)}

    def of(self, words: Sequence[str]) -> Tensor:
        return self.vectors[[self._rows[word] for word in words]]


@dataclass(frozen=True)
class Words:
    """An encoder's ``vectors (N, D)`` of ``names``, and what these are to each of ``concepts``, C of the names by their
    place: ``kinds``, ``siblings``, and ``aside``, what is neither asked nor a negative, are ``(C, N)``. ``same`` is the
    cosine of what the encoder takes for the same thing."""

    names: list[str]
    vectors: Tensor
    concepts: list[int]
    kinds: Tensor
    siblings: Tensor
    aside: Tensor
    same: float = 1.0

    @property
    def negatives(self) -> Tensor:
        return ~(self.kinds | self.aside)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("vectors", metavar="VECTORS.npz", help="a file of words and vectors, or diorama")
    parser.add_argument("--encoder", metavar="NAME", help="what made the vectors (default: the file's name)")
    add_results_option(parser)
    args = parser.parse_args()
    here = machine()
    with in_one_line():
        words = of_diorama() if args.vectors == "diorama" else read(Path(args.vectors))
    figures = {"score": compared(words), "decided": decided(words)}
    for title, values in (*figures["score"].items(), *figures["decided"].items()):
        print(f"{title}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
    if args.results:
        what = "Kinds and synonyms of concepts found by a text encoder's score, and siblings opened"
        config = {
            "encoder": args.encoder or Path(args.vectors).stem,
            "words": len(words.names),
            "concepts": len(words.concepts),
            "kinds": int(words.kinds.sum()),
            "siblings": int(words.siblings.sum()),
        }
        write_result(args.results, what=what, config=config, figures=figures, environment=here)
    return 0


def read(path: Path) -> Words:
    """Return the words of a file, by WordNet. Raises ``ConfigError`` where it is not what it should be."""
    expected = "expected diorama, or an .npz file with names (N), synsets (N) and vectors (N, D)"
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ConfigError(f"{path}: is no .npz file; {expected}")
    try:
        with np.load(path) as data:
            names, synsets, vectors = data["names"], data["synsets"], data["vectors"]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; {expected}") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}; {expected}") from error
    if not (names.shape == synsets.shape == vectors.shape[:1] and vectors.ndim == 2 and vectors.dtype.kind == "f"):
        shapes = f"names {names.shape}, synsets {synsets.shape}, vectors {vectors.shape} of {vectors.dtype}"
        raise ConfigError(f"{path}: has {shapes}; {expected}")
    if not (np.abs(vectors) <= np.finfo(np.float32).max).all():
        raise ConfigError(f"{path}: vectors hold NaN, infinity, or what is infinite in float32")
    if (vectors == vectors[:1]).all():
        raise ConfigError(f"{path}: all vectors are the same, which tells no words apart")
    words = by_wordnet(
        [str(name) for name in names], [str(synset) for synset in synsets], torch.from_numpy(vectors.astype(float))
    )
    if not words.concepts:
        raise ConfigError(f"{path}: none of {len(names)} names has {LEAST_KINDS} or more kinds among the others")
    return words


def by_wordnet(names: Sequence[str], synsets: Sequence[str], vectors: Tensor) -> Words:
    """Return the words whose synset, or else whose name, the dictionary has, each name once."""
    places: dict[str, tuple[int, Sense]] = {}
    for i, (name, synset) in enumerate(zip(names, synsets, strict=True)):
        sense = sense_of(synset) or next(iter(dictionary().senses(name.replace("_", " "))), None)
        if sense is not None:
            places.setdefault(name.replace("_", " "), (i, sense))
    rows = np.array([sense.row for _, sense in places.values()])
    above = [dictionary().rows_above(sense) for _, sense in places.values()]
    parents = [{parent.row for parent in dictionary().hypernyms(sense)} for _, sense in places.values()]
    below = torch.tensor([[row in others for others in above] for row in rows.tolist()])  # (i, j): j is i or a kind
    itself = torch.eye(len(rows), dtype=torch.bool)
    kinds, over = below & ~itself, below.T & ~below
    siblings = torch.tensor([[bool(one & other) for other in parents] for one in parents]) & ~below & ~over
    concepts = (kinds.sum(1) >= LEAST_KINDS).nonzero().flatten().tolist()
    used = vectors[[i for i, _ in places.values()]].double()
    return Words([*places], used, concepts, kinds[concepts], siblings[concepts], (over | itself)[concepts])


def sense_of(synset: str) -> Sense | None:
    """Return the sense that WordNet calls *synset*, by its first word and its number among the senses of that."""
    word, _, number = synset.partition(".n.")
    senses = dictionary().senses(word.replace("_", " "))
    # Proper names are not in the dictionary, so a sense may stand before its number.
    there = [sense for sense in senses[: int(number) if number.isdecimal() else 0] if sense.words[0] == word]
    return there[-1] if there else None


def of_diorama() -> Words:
    """Return the words of the built-in model's world."""
    encoder = encoder_of(family := load_model(ModelConfig(path="diorama"), torch.device("cpu")).family)
    named = [*OBJECTS, *(word for words in SYNONYMS.values() for word in words)]
    known = [word for word, whole in zip(encoder.words, encoder.whole.tolist(), strict=True) if whole]
    names = [*dict.fromkeys([*named, *known])]
    meaning = {name: name for name in OBJECTS} | {word: name for name, words in SYNONYMS.items() for word in words}
    means = [meaning.get(name) for name in names]
    for name, means_it in [*meaning.items()]:
        meaning[plural(name)] = means_it
    concepts = [i for i, name in enumerate(OBJECTS) if len(SYNONYMS.get(name, ())) >= LEAST_KINDS]
    kinds, siblings, aside = (torch.zeros(len(concepts), len(names), dtype=torch.bool) for _ in range(3))
    for c, concept in enumerate(OBJECTS[i] for i in concepts):
        scenes = {word for scene, shown in IMPLIED.items() if concept in shown for word in scene.split()}
        for i, name in enumerate(names):
            kinds[c, i] = means[i] == concept and name != concept
            siblings[c, i] = means[i] != concept and means[i] in FAMILIES[family_of(concept)]
            aside[c, i] = not kinds[c, i] and (meaning.get(name) == concept or name in scenes)
    return Words(names, encoded(family, names), concepts, kinds, siblings, aside, encoder.same)


def compared(words: Words) -> dict[str, Figures]:
    """Return what each score finds."""
    return {name: found_by(scores, words) for name, scores in zip(COMPARED, all_scores(words), strict=True)}


def found_by(scores: Tensor, words: Words) -> Figures:
    """Return what *scores* ``(C, N)`` find."""
    asked = torch.ones_like(words.kinds)
    asked[torch.arange(len(words.concepts)), torch.tensor(words.concepts)] = False
    found: Figures = {}
    for share in SHARES:
        found[f"candidates at {share:.0%}"] = recalls(above(scores, asked, share), words).mean().item()
    for rate in ALARMS:
        opened = above(scores, words.negatives, rate)
        found[f"1 in {1 / rate:.0f}"] = recalls(opened, words).mean().item()
        found[f"1 in {1 / rate:.0f}, siblings"] = share_of(opened, words.siblings)
    opened = scores > quantile(scores[words.negatives], POOLED)
    found["1 in 1,000 pooled"] = recalls(opened, words).mean().item()
    found["1 in 1,000 pooled, siblings"] = share_of(opened, words.siblings)
    return found


def decided(words: Words) -> dict[str, Figures]:
    """Return what is found where it is decided."""
    cosine, standard, rivals = all_scores(words)
    alone = rivals > quantile(rivals[words.negatives], POOLED)
    near = standard >= standard.quantile(1 - CANDIDATES, dim=1, keepdim=True)
    kinds = torch.stack([related(words, i, Relation.kind) for i in words.concepts])
    gate = by_gate(words)
    opened = {f"cosine of {fixed:g}": cosine >= fixed for fixed in FIXED}
    opened |= {"1 in 1,000 pooled": alone, "1 in 1,000 pooled, dictionary": alone | (kinds & near)}
    opened |= {"the gate": gate >= OPENS, "the gate, means": gate >= MEANS}
    return {name: judged(found, words) for name, found in opened.items()}


def judged(opened: Tensor, words: Words) -> Figures:
    """Return what *opened* ``(C, N)`` has found, and what besides."""
    found = recalls(opened, words)
    return {
        "recall": found.mean().item(),
        "median": found.median().item(),
        "worst": found.min().item(),
        "siblings": share_of(opened, words.siblings),
        "others in 1,000": 1000 * share_of(opened, words.negatives & ~words.siblings),
    }


def all_scores(words: Words) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores ``(C, N)`` of ``COMPARED``."""
    unit = torch.nn.functional.normalize(words.vectors, dim=1)
    unit = torch.nn.functional.normalize(unit - unit.mean(0), dim=1)
    standard = Standard(words.vectors).of(words.vectors)
    rivals = [
        nearness(standard, standard[i : i + 1], standard[related(words, i, Relation.sibling)]) for i in words.concepts
    ]
    return unit[words.concepts] @ unit.T, standard[words.concepts] @ standard.T, torch.stack(rivals)


def by_gate(words: Words) -> Tensor:
    """Return the gate's own scores ``(C, N)``."""
    encoder = Given(words.names, words.vectors, words.same)
    scores = []
    for i in tqdm(words.concepts, desc="gate"):
        measure = Measure(encoder, Concept(name=words.names[i]), [], FALSE_ALARMS)
        own = zip(words.names, encoder.vectors, strict=True)
        scores.append([measure.score(name, vector, whole=True) for name, vector in own])
    return torch.tensor(scores)


def related(words: Words, concept: int, relation: Relation) -> Tensor:
    """Return which names are in this relation to a concept by the dictionary, ``(N,)``."""
    kin = Kin(Concept(name=words.names[concept]))
    return torch.tensor([kin.relation(name) is relation for name in words.names])


def above(scores: Tensor, among: Tensor, share: float) -> Tensor:
    """Return which *scores* ``(C, N)`` exceed what, of each concept, a *share* of those *among* ``(C, N)`` exceeds."""
    return torch.stack([s > s[a].quantile(1 - share) for s, a in zip(scores, among, strict=True)])


def recalls(found: Tensor, words: Words) -> Tensor:
    """Return the share of its kinds that is found of each concept, ``(C,)``."""
    return (found & words.kinds).sum(1) / words.kinds.sum(1)


def share_of(found: Tensor, among: Tensor) -> float:
    return found[among].double().mean().item() if among.any() else 0.0


if __name__ == "__main__":
    sys.exit(main())
