"""Erased beside unerased pictures for the same prompts and seeds: what the erasure changed, to be looked at.

Unerased pictures show what a corpus must not contain, so pairs are only ever written to the evidence beside it.
"""

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.audit.auditor import Auditor
from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming
from pipeline.config.schema import ImageFormat
from pipeline.corpus import RunRecord
from pipeline.corpus.encode import encode_image
from pipeline.corpus.evidence import Pair, write_pairs
from pipeline.drawable import Drawable
from pipeline.erasure.recipe import CompiledRecipe
from pipeline.generation.engine import Engine
from pipeline.prompts import Plan, Sample
from pipeline.session import Session
from pipeline.terminal import live

SCAN = 2000  # samples looked at for prompts that name a concept: enough for 8 pairs where one prompt in 250 does


def choose_samples(plan: Plan, concepts: Sequence[Concept], count: int) -> list[Sample]:
    """Choose *count* samples of the plan: half that name an erased concept, half that do not, where it has them.

    They come from the first, evenly spread shards, at most ``SCAN`` samples, one per prompt. Rows
    that cannot be drawn are passed over.
    """
    named: dict[str, Sample] = {}
    others: dict[str, Sample] = {}
    scanned = 0
    naming = Naming(concepts)
    stride = max(1, plan.shards // max(1, SCAN // plan.samples_per_shard))
    for shard in range(0, plan.shards, stride):
        scanned += plan.samples_per_shard
        for sample in plan.shard(shard).samples:
            if sample.fault is not None:
                continue
            pile = named if naming.names(sample.prompt) else others
            pile.setdefault(sample.prompt, sample)
        if scanned >= SCAN:
            break
    first = list(named.values())[: count - min(len(others), count // 2)]
    chosen = [*first, *list(others.values())[: count - len(first)]]
    return heapq.nsmallest(count, chosen, key=lambda sample: sample.index)


def draw_evidence(session: Session, record: RunRecord, samples: Sequence[Sample]) -> None:
    """Draw *samples* of a pinned run erased and unerased, and write the pairs to its evidence."""
    session.pin(record)
    # No more slots than samples: the rest of a batch would be drawn for nothing.
    size = min(record.batch_size, len(samples))
    write_pairs(session.output.evidence, draw_pairs(session, session.pinned_recipe(record), samples, size))


def draw_pairs(
    session: Session, recipe: CompiledRecipe, samples: Sequence[Sample], batch_size: int | None = None
) -> list[Pair]:
    """Draw *samples*, but those that cannot be, with and without the recipe."""
    auditor = session.auditor
    with tqdm(desc="pairs", total=2 * len(samples), unit="image", leave=False, disable=not live()) as bar:
        engine = session.engine(None, batch_size=batch_size)
        drawable = Drawable(engine, auditor)
        samples = [sample for sample in samples if drawable.fault(sample) is None]
        before, before_scores, _ = _draw(engine, samples, auditor, bar)
        after, after_scores, gates = _draw(session.engine(recipe, batch_size=batch_size), samples, auditor, bar)
    return [
        Pair(
            prompt=sample.prompt,
            key=sample.key,
            seed=sample.seed,
            unerased=encode_image(before[i], ImageFormat.png, 0),
            erased=encode_image(after[i], ImageFormat.png, 0),
            unerased_scores=before_scores[i],
            erased_scores=after_scores[i],
            gates=gates[i],
        )
        for i, sample in enumerate(samples)
    ]


def _draw(
    engine: Engine, samples: Sequence[Sample], auditor: Auditor | None, bar: "tqdm[Any]"
) -> tuple[list[np.ndarray], list[dict[str, float]], list[dict[str, float]]]:
    drawn: dict[str, tuple[np.ndarray, dict[str, float], dict[str, float]]] = {}  # by key: batches have their own order
    for batch in engine.generate(samples):
        bar.update(len(batch.images))
        scores = [v.scores for v in auditor.judge(batch.images)] if auditor else [{} for _ in batch.samples]
        for i, sample in enumerate(batch.samples):
            gates = {name: float(values[i]) for name, values in batch.gates.items()}
            drawn[sample.key] = batch.images[i], scores[i], gates
    found = [drawn[sample.key] for sample in samples]
    return [image for image, _, _ in found], [scores for _, scores, _ in found], [gates for _, _, gates in found]
