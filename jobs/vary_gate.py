"""What hangs on the numbers of the text gate that are set by hand: each at half and at twice its value.

    python jobs/vary_gate.py WORDS.npz MODEL [--results FILE]

The encoders are those of ``compare_scorers.py``, and so are the words. The numbers are the least share of what makes a
word stand out that must be the concept (``calibration.LEAST``, squared), the share from which on a word means it
(``calibration.SAME``, squared; at most 1, which nothing but the same reaches), the ridge (``standard.RIDGE``), and the
share of words that are candidates (``measure.CANDIDATES``); of whole prompts the least share (``context.LEAST``,
squared), on the built-in model alone, since the others are asked about words: each of its objects in turn is the
concept, listed with its family, and is asked for by each synonym, in scenes that imply it and in pairs, as in
``ablate_gates.py``.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.ablate_gates import asking
from jobs.compare_scorers import arguments, opened
from jobs.score_words import Words, by_gate, judged, of_diorama
from jobs.words.encoders import Diorama
from jobs.words.grammar import sentences
from pipeline.concepts.concept import Concept
from pipeline.diorama.lexicon import FAMILIES, OBJECTS, SYNONYMS, family_of
from pipeline.erasure.gate import calibration, context, measure, standard
from pipeline.erasure.gate.calibration import OPENS
from pipeline.evaluation.results import machine, write_result
from pipeline.models.family import Family

# Name, where it stands, and how the number that is varied is told from what stands there.
NUMBERS: tuple[tuple[str, ModuleType, str, bool], ...] = (
    ("least share of a word", calibration, "LEAST", True),
    ("share that means it", calibration, "SAME", True),
    ("ridge", standard, "RIDGE", False),
    ("share of candidates", measure, "CANDIDATES", False),
)
FACTORS = (0.5, 1.0, 2.0)

Figures = dict[str, Any]


def main() -> int:
    args = arguments(__doc__)
    here = machine()
    given, encoder = opened(args)
    texts = encoder.states(*sentences(given.names, ["a {}"])).text
    assert texts is not None
    own = Words(given.names, texts.double(), given.concepts, given.kinds, given.siblings, given.aside)
    encoders = {args.words.stem: given, Diorama.name: of_diorama(), encoder.name: own}
    words = {name: varied(of) for name, of in encoders.items()}
    whole = prompts(Diorama().family)
    for name, rows in (*words.items(), ("whole prompts", whole)):
        for row in rows:
            print(f"{name}: {row}")
    if args.results:
        what = "Numbers of the text gate that are set by hand, at half and twice their values"
        config = {"factors": list(FACTORS), "words": {name: len(of.names) for name, of in encoders.items()}}
        figures = {"words": words, "whole prompts": whole}
        write_result(args.results, what=what, config=config, figures=figures, environment=here)
    return 0


def varied(words: Words) -> list[Figures]:
    """Return what the gate finds of *words* with each number at each value."""
    rows = []
    for name, module, number, squared in NUMBERS:
        for factor in FACTORS:
            with changed(module, number, factor, squared) as value:
                scores = by_gate(words)
            rows.append({"number": name, "value": value, **judged(scores >= OPENS, words)})
            rows[-1]["means"] = judged(scores >= calibration.MEANS, words)["recall"]
    return rows


def prompts(family: Family) -> list[Figures]:
    """Return what whole prompts open of the built-in model's objects, with the least share at each value."""
    asked = asking()
    naming = np.array([[name in objects for name in OBJECTS] for _, objects in asked])
    embeds = [family.encode([text]).embeds[0] for text, _ in asked]
    rows = []
    for factor in FACTORS:
        with changed(context, "LEAST", factor, True) as value:
            scores = []
            for name in OBJECTS:
                kin = tuple(other for other in FAMILIES[family_of(name)] if other != name)
                concept = Concept(name=name, aliases=SYNONYMS.get(name, ())[:1], preserve=kin)
                whole = context.Context(family, [concept])
                scores.append([whole.scores(text, own)[0] for (text, _), own in zip(asked, embeds, strict=True)])
        opened = np.array(scores).T >= OPENS
        counts = {"asked": opened[naming].mean(), "others in 1,000": 1000 * opened[~naming].mean()}
        rows.append({"number": "least share of a prompt", "value": value, **{k: float(v) for k, v in counts.items()}})
    return rows


@contextmanager
def changed(module: ModuleType, name: str, factor: float, squared: bool) -> Iterator[float]:
    """Let the number *name* of *module* be *factor* times as great, as a share at most 1; the value is its square where
    it is a cosine."""
    before = getattr(module, name)
    value = min(1.0, factor * before**2) if squared else factor * before
    setattr(module, name, math.sqrt(value) if squared else value)
    try:
        yield value
    finally:
        setattr(module, name, before)


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(main())
