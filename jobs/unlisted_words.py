"""What the text gate does with words that no list, dictionary or vocabulary has: misspelt, compounded, brands, slang.

    python jobs/unlisted_words.py diorama|MODEL [--results FILE]

``words/unlisted.csv`` has them, for five concepts with two or three listed words each: what should open the gate, and
siblings and like-looking words that should not. What of the gate was chosen was chosen on the concepts of its split
"choose" alone. The encoder is the built-in model's, which knows few words, or the sentence encoder in a folder, as in
``compare_scorers.py``. A word is asked as "a WORD"; it opens the gate where anything in that is a hit. ``everyday`` are
the words that thresholds are calibrated on, without kinds and what is above: of them one in 1,000 may open it.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.refusal import in_one_line
from jobs.words.encoders import Diorama, SentenceEncoder
from pipeline.concepts.concept import Concept
from pipeline.concepts.kin import Relation
from pipeline.concepts.mentions import Naming
from pipeline.erasure.gate.calibration import FALSE_ALARMS, OPENS
from pipeline.erasure.gate.encoder import encoder_of
from pipeline.erasure.gate.measure import Measure
from pipeline.erasure.gate.text import TextGate
from pipeline.evaluation.results import add_results_option, machine, write_result

FILE = Path(__file__).with_name("words") / "unlisted.csv"
EVERYDAY = "everyday"

Figures = dict[str, Any]


class Group(NamedTuple):
    """Words of one sort that are asked of one concept."""

    split: str
    concept: Concept
    what: str
    words: tuple[str, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("encoder", metavar="diorama|MODEL", help="or a folder with a sentence encoder")
    add_results_option(parser)
    args = parser.parse_args()
    here = machine()
    with in_one_line(expected="diorama or a folder with one"):
        encoder = Diorama() if args.encoder == "diorama" else SentenceEncoder(Path(args.encoder))
    figures = found(encoder.family if isinstance(encoder, Diorama) else encoder)
    for split, rows in figures.items():
        for what, row in rows.items():
            opened, asked = row["opened"]
            print(f"{split}, {what}: {opened} of {asked}: {', '.join(row['which'])}")
    if args.results:
        what = "Words that no list has: misspelt, compounded, brands, slang, other languages"
        write_result(args.results, what=what, config={"encoder": encoder.name}, figures=figures, environment=here)
    return 0


def groups() -> Iterator[Group]:
    """Yield the groups of the file. The listed words of a concept stand with its first group."""
    listed: dict[str, tuple[str, ...]] = {}
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["listed"]:
                listed[row["concept"]] = tuple(row["listed"].split(";"))
            concept = Concept(name=row["concept"], aliases=listed[row["concept"]])
            yield Group(row["split"], concept, row["what"], tuple(row["words"].split(";")))


def found(family: Any) -> dict[str, dict[str, Figures]]:
    """Return split -> what -> how many words opened of how many, and which."""
    figures: dict[str, dict[str, Figures]] = {}
    gates: dict[Concept, TextGate] = {}
    for split, concept, what, words in groups():
        if concept not in gates:
            gates[concept] = TextGate(family, [concept])
            _add(figures, Group(split, concept, EVERYDAY, ()), *everyday(family, concept))
        opened = [word for word in words if gates[concept].hits(f"a {word}")]
        _add(figures, Group(split, concept, what, words), opened, len(words))
    return figures


def everyday(family: Any, concept: Concept) -> tuple[list[str], int]:
    """Return which everyday words open the gate, of how many that are no kind of *concept*, nor above it."""
    encoder = encoder_of(family)
    measure, own = Measure(encoder, concept, [], FALSE_ALARMS), Naming([concept])
    asking = (Relation.kind, Relation.above)
    asked = [
        (word, vector, whole)
        for word, vector, whole in zip(encoder.words, encoder.vectors, encoder.whole.tolist(), strict=True)
        if measure.kin.relation(word) not in asking and not own.is_word(word)
    ]
    return [word for word, vector, whole in asked if measure.score(word, vector, whole) >= OPENS], len(asked)


def _add(figures: dict[str, dict[str, Figures]], group: Group, opened: list[str], asked: int) -> None:
    row = figures.setdefault(group.split, {}).setdefault(group.what, {"opened": [0, 0], "which": []})
    row["opened"] = [row["opened"][0] + len(opened), row["opened"][1] + asked]
    row["which"] += [f"{group.concept.name}: {word}" for word in opened]


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(main())
