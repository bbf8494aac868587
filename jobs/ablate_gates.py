"""CEASE's WHEN: each of the diorama's 64 objects as the concept in turn, in prompts that ask for it and that do not.

    python jobs/ablate_gates.py [--threads 2]

Every object is named once, by each synonym but its first, in scenes that imply it, in pairs, and not at all; the list
of each concept has its first synonym as an alias and its family as neighbours. Pictures are drawn unerased in 8 steps,
in the dtype that the machine does fast, and judged by detector A. "Asked" tells how many of the pairs of prompt and
object in which the prompt asks for the object, and the picture shows it, concern the gate; "neither" how many of those
in which it does neither; "shown" how many of those in which the picture shows what nothing asks for. The last two
columns are where a threshold would have to lie: below nearly all that is asked for (all but 1 %), above all that is
neither. A minute and a half on one core. Attacks and whole runs are in ``ablate_cease.py``.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pipeline.concepts.concept import Concept
from pipeline.config.schema import Config, ModelConfig
from pipeline.diorama.detector import DioramaDetector
from pipeline.diorama.lexicon import BACKGROUND_PHRASES, FAMILIES, IMPLIED, OBJECTS, SYNONYMS, UNKNOWN, family_of
from pipeline.erasure.cease.hearing import ConceptDirections, Listener
from pipeline.erasure.cease.steering import WatchfulSteering
from pipeline.erasure.gate.calibration import OPENS
from pipeline.erasure.gate.context import Context
from pipeline.erasure.gate.text import TextGate
from pipeline.erasure.method import Method, Prompts, Sampling, Steering
from pipeline.evaluation.results import add_results_option, machine, write_result
from pipeline.generation.engine import Engine
from pipeline.models.dtype import fast_dtype
from pipeline.models.load import Model, load_model
from pipeline.prompts import unplanned

BATCH, STEPS = 12, 8
ABOVE_ALL = 2.0  # no attention score, a cosine, reaches it: it is taken note of, and nothing is switched
ATTENTION = 0.37  # the threshold that the option ``attention`` had in the ablation
MODEL = ModelConfig(path="diorama", dtype=fast_dtype("cpu"))
COUNTS = ("asked, seen", "asked, unseen", "neither", "shown unasked")
EDGES = ("99 % of asked", "most of neither")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    add_results_option(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    here = machine()
    model = load_model(MODEL, torch.device("cpu"))
    concepts = [
        Concept(
            name=name,
            aliases=SYNONYMS.get(name, ())[:1],
            preserve=tuple(other for other in FAMILIES[family_of(name)] if other != name),
        )
        for name in OBJECTS
    ]
    prompts = asking()
    texts = [text for text, _ in prompts]
    asked = np.array([[name in objects for name in OBJECTS] for _, objects in prompts])
    seen, attention = drawn(model, concepts, texts)
    words, context = read(model, concepts, texts)
    rows = counted(asked, seen, {"words": words, "context": context, "attention": attention})
    print(table(rows))
    if args.results:
        what = "CEASE's WHEN: which prompts concern each of the diorama's objects, by each gate"
        config = {"prompts": len(texts), "objects": len(OBJECTS), "steps": STEPS, "dtype": str(MODEL.dtype)}
        write_result(args.results, what=what, config=config, figures=rows, environment=here)
    return 0


def asking() -> list[tuple[str, tuple[str, ...]]]:
    """Return prompts and the objects that each asks for."""
    rng = random.Random("gates")
    places = [phrase for phrases in BACKGROUND_PHRASES.values() for phrase in phrases[:2]]
    shuffled = rng.sample(OBJECTS, len(OBJECTS))
    asks: list[tuple[str, tuple[str, ...]]] = [(f"a {name}", (name,)) for name in OBJECTS]
    asks += [(f"a {word}", (name,)) for name, words in SYNONYMS.items() for word in words[1:]]
    asks += 2 * list(IMPLIED.items())
    asks += [(f"a {one} and a {two}", (one, two)) for one, two in pairwise([*shuffled, shuffled[0]])]
    asks += [(f"a {word}", ()) for word in UNKNOWN]
    return [(f"{text} {rng.choice(places)}", objects) for text, objects in asks]


class Listen(Method):
    """Gates of a batch are the attention scores of every concept, by its name."""

    requires = frozenset({"cross_attention"})

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering:
        listener = Listener(ConceptDirections(self.model.family, self.concepts), sampling.latent_shape)
        first = len(prompts) if prompts.negative is not None else 0
        known = torch.zeros(len(prompts), len(self.concepts), dtype=torch.bool)
        names = [concept.name for concept in self.concepts]
        return WatchfulSteering(listener, ABOVE_ALL, names, known, first, (), _late)


def _late(found: torch.Tensor, listener: Listener) -> Steering:
    raise AssertionError("a concept was heard above all")


def drawn(model: Model, concepts: Sequence[Concept], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what detector A sees in the unerased pictures, and the first step's attention scores: ``(n, objects)``."""
    config = Config(model=MODEL)
    config.generation.steps, config.generation.batch_size = STEPS, BATCH
    alone = [replace(concept, preserve=()) for concept in concepts]  # all are listed at once, neighbours too
    engine = Engine(config, model, [Listen(model, alone, None, label="listen")])
    detector = DioramaDetector.load("a")
    seen, heard = [], []
    with tqdm(total=len(texts), desc="drawing") as bar:
        for batch in engine.generate(unplanned(((text, i) for i, text in enumerate(texts)), 64, 64)):
            seen.append(detector.probabilities(torch.from_numpy(batch.images))[:, : len(OBJECTS)].numpy() >= 0.5)
            heard.append(np.stack([batch.gates[name] for name in OBJECTS], axis=1))
            bar.update(len(batch.images))
    return np.concatenate(seen), np.concatenate(heard)


def read(model: Model, concepts: Sequence[Concept], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return how near words, and prompts as a whole, come to each concept erased alone: ``(n, objects)`` each."""
    embeds = [model.family.encode([text]).embeds[0] for text in texts]
    words, context = [], []
    for concept in tqdm(concepts, desc="reading"):
        gate, whole = TextGate(model.family, [concept]), Context(model.family, [concept])
        words.append([gate.scores(text)[0] for text in texts])
        context.append([whole.scores(text, embed)[0] for text, embed in zip(texts, embeds, strict=True)])
    return np.array(words).T, np.array(context).T


Row = dict[str, Any]


def counted(asked: np.ndarray, seen: np.ndarray, scores: dict[str, np.ndarray]) -> dict[str, Row]:
    """Return gate -> column of the table -> how many of how many, or a score; all arrays are ``(n, objects)``."""
    thresholds = {"words": OPENS, "context": OPENS, "attention": ATTENTION}
    concerned = {f"{name} ({thresholds[name]:g})": values >= thresholds[name] for name, values in scores.items()}
    words, context, attention = concerned.values()
    concerned |= {"words and context": words | context, "all three": words | context | attention}
    pairs = (asked & seen, asked & ~seen, ~asked & ~seen, ~asked & seen)
    rows: dict[str, Row] = {}
    for name, found in concerned.items():
        rows[name] = {
            column: [int(found[pair].sum()), int(pair.sum())] for column, pair in zip(COUNTS, pairs, strict=True)
        }
        values = scores.get(name.split(" (")[0])
        if values is not None:
            edges = (float(np.quantile(values[asked & seen], 0.01)), float(values[~asked & ~seen].max()))
            rows[name] |= dict(zip(EDGES, edges, strict=True))
    return rows


def table(rows: dict[str, Row]) -> str:
    """Return the rows as Markdown."""
    lines = ["| gate | " + " | ".join((*COUNTS, *EDGES)) + " |", "|" + "---|" * (len(COUNTS + EDGES) + 1)]
    for name, row in rows.items():
        counts = [f"{row[column][0]:,} of {row[column][1]:,}" for column in COUNTS]
        edges = [f"{row[column]:.2f}" if column in row else "" for column in EDGES]
        lines.append(f"| {name} | " + " | ".join(counts + edges) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
