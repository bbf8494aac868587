"""How many words that have nothing to do with an erasure list open the text gate all the same, of each list that ships.

    python jobs/false_alarms.py diorama|MODEL|VECTORS.npz [--results FILE]

A config states a rate for each concept (``words.false_alarms``, one in 1,000 everyday words); a list opens on what any
of its concepts opens on. Counted are ``everyday`` words, on which thresholds are calibrated, and as many ``rarer``
ones, the next of the vocabulary, on which nothing is. Not asked are words that the list has, kinds of a concept and
what it is a kind of, and function words, as the gate asks none. Many that open have to do with it for all that (a war,
of guns), which no dictionary tells. The encoder is the built-in model's, the sentence encoder in a folder, as in
``compare_scorers.py``, or one of which no more is known than vectors of words (``score_words.py``): these are then all
words that there are, and of a list those count that are among them.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.refusal import in_one_line
from jobs.score_words import Given, read
from jobs.words.encoders import Diorama, SentenceEncoder
from pipeline.concepts.concept import Concept
from pipeline.concepts.everyday import everyday
from pipeline.concepts.kin import Relation
from pipeline.concepts.mentions import Naming
from pipeline.config.concepts import concepts_of
from pipeline.config.load import load_config
from pipeline.erasure.gate.calibration import FALSE_ALARMS, OPENS
from pipeline.erasure.gate.encoder import Encoder, encoder_of
from pipeline.erasure.gate.measure import Measure
from pipeline.erasure.gate.text import words_of
from pipeline.evaluation.results import add_results_option, machine, write_result

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
LISTS = sorted((CONFIGS / "erasure").glob("*.yaml"))

Figures = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("encoder", metavar="diorama|MODEL|VECTORS.npz", help="or a folder with a sentence encoder")
    add_results_option(parser)
    args = parser.parse_args()
    here = machine()
    with in_one_line():
        name, encoder, _family = opened(args.encoder)
    figures = {path.stem: found(encoder, listed(path)) for path in tqdm(LISTS, desc=name)}
    figures = {name: own for name, own in figures.items() if own}
    for stem, own in figures.items():
        for group, row in own["opened"].items():
            hits, asked_of = row["words"]
            print(f"{stem}, {group}: {row['rate']:.2f} in 1,000 a concept; {hits} of {asked_of} words for the list")
    if args.results:
        what = "Words that have nothing to do with a list and open the text gate, of each list that ships"
        config = {"encoder": name, "false_alarms": FALSE_ALARMS}
        write_result(args.results, what=what, config=config, figures=figures, environment=here)
    return 0


def opened(encoder: str) -> tuple[str, Encoder, Any]:
    """Return the name of an *encoder*, what it makes of everyday words, and what must live as long as that, since it is
    asked for others. Raises ``ConfigError`` where it is none."""
    if encoder.endswith(".npz"):
        words = read(Path(encoder))
        return Path(encoder).stem, Given(words.names, words.vectors, words.same), None
    model = Diorama() if encoder == "diorama" else SentenceEncoder(Path(encoder))
    family: Any = model.family if isinstance(model, Diorama) else model
    return model.name, encoder_of(family), family


def listed(path: Path) -> tuple[Concept, ...]:
    """Return the concepts of the list in *path*."""
    overrides = ["erasure.concepts=[]", f"erasure.lists=['{path}']"]
    return concepts_of(load_config(CONFIGS / "quickstart.yaml", overrides).erasure)


def found(encoder: Encoder, concepts: Sequence[Concept]) -> Figures:
    """Return what of the words that have nothing to do with *concepts* opens for any of them; nothing where *encoder*
    knows no word of theirs."""
    concepts = [known for concept in concepts if (known := as_known(encoder, concept))]
    if not concepts:
        return {}
    names = Naming(concepts)
    measures = []
    for concept in concepts:
        kept = [word for word in (*concept.preserve, concept.anchor) if word and not names.names(word)]
        measures.append(Measure(encoder, concept, kept, FALSE_ALARMS))
    groups = {}
    for group, words in asked(encoder):
        rows = [i for i, word in enumerate(words) if words_of(word) and not names.names(word)]
        vectors = encoder.vectors if words == encoder.words else encoder.of(words)
        whole = [encoder.reads_whole(words[i]) for i in rows]
        groups[group] = _opened(concepts, measures, [words[i] for i in rows], vectors[rows], whole)
    return {"concepts": len(concepts), "words": sum(len(concept.words) for concept in concepts), "opened": groups}


def as_known(encoder: Encoder, concept: Concept) -> Concept | None:
    """Return *concept* with what of its words and neighbours a given *encoder* has vectors of."""
    if not isinstance(encoder, Given):
        return concept
    words, near = ([w for w in ws if w in encoder.words] for ws in (concept.words, (*concept.preserve, concept.anchor)))
    return Concept(name=words[0], aliases=tuple(words[1:]), preserve=tuple(near)) if words else None


def asked(encoder: Encoder) -> Iterator[tuple[str, Sequence[str]]]:
    yield "everyday", encoder.words
    if not isinstance(encoder, Given):
        yield "rarer", everyday()[len(encoder.words) : 2 * len(encoder.words)]


def _opened(
    concepts: Sequence[Concept],
    measures: Sequence[Measure],
    words: Sequence[str],
    vectors: torch.Tensor,
    whole: Sequence[bool],
) -> Figures:
    """Return ``rate``, of words in 1,000 a concept; of each concept how many opened of how many; how many ``words``
    opened for any, of how many, and ``which``."""
    by_concept: dict[str, list[int]] = {}
    which: dict[str, str] = {}
    for concept, measure in zip(concepts, measures, strict=True):
        count = by_concept[concept.name] = [0, 0]
        for word, vector, is_whole in zip(words, vectors, whole, strict=True):
            if measure.kin.relation(word) in (Relation.kind, Relation.above):
                continue
            count[1] += 1
            if measure.score(word, vector, is_whole) >= OPENS:
                count[0] += 1
                which.setdefault(word, concept.name)
    hits, trials = (sum(counts) for counts in zip(*by_concept.values(), strict=True))
    rate = 1000 * hits / trials
    return {"rate": rate, "concepts": by_concept, "words": [len(which), len(words)], "which": which}


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(main())
