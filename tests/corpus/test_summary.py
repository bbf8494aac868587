"""The counts of manifests, column by column, against the same counts row by row."""

import random
from collections import Counter

import pytest

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming
from pipeline.corpus import Attempt, ManifestRow, Status
from pipeline.corpus.manifest import read_manifest, write_manifest
from pipeline.corpus.summary import BINS, COLUMNS, Summary

WORDS = Naming([Concept(name="cat", aliases=("kitten",)), Concept(name="hot dog")])


def manifest(rows):
    return read_manifest(write_manifest(rows), columns=COLUMNS)


def row(number, attempts, prompt="a cat"):
    last = attempts[-1]
    return ManifestRow(
        key=f"{number:011d}", shard=0, prompt=prompt, caption="", seed=last.seed, width=16, height=16,
        status=last.status, reason=last.reason, scores=last.scores, attempts=tuple(attempts),
    )  # fmt: skip


def judged(seed, **scores):
    found = [name for name, score in scores.items() if score >= 0.5]
    return Attempt(seed=seed, status=Status.quarantined if found else Status.ok, reason=",".join(found), scores=scores)


def failed(seed, reason):
    return Attempt(seed=seed, status=Status.failed, reason=reason)


def test_columns_give_the_counts_of_rows():
    rng = random.Random(0)
    shards = []
    for _ in range(3):
        rows = []
        for i in range(200):
            attempts = [judged(j, cat=round(rng.random(), 2), dog=rng.choice([0.0, 0.05, 0.5, 1.0])) for j in range(3)]
            rows.append(row(i, [*attempts[: rng.randrange(1, 4)], *[failed(9, "nan")] * (rng.random() < 0.2)]))
        shards.append(rows)
    summary = Summary()
    for rows in shards:
        summary.add(manifest(rows), WORDS)
    rows = [row for rows in shards for row in rows]
    attempts = [attempt for row in rows for attempt in row.attempts]
    assert summary.statuses == Counter(str(row.status) for row in rows)
    assert summary.samples == 600
    assert summary.attempts == len(attempts)
    assert summary.reasons == {"nan": sum(row.status is Status.failed for row in rows)}
    for concept in ("cat", "dog"):
        assert summary.drawn[concept] == sum(concept in attempt.scores for attempt in attempts)
        assert summary.drawn_with[concept] == sum(concept in attempt.reason.split(",") for attempt in attempts)
        seen = sum(concept in row.found for row in rows)
        assert seen > 0
        assert summary.found["quarantined"][concept] == seen
        # scores are stored as float32, and so are binned
        bins = Counter(min(BINS - 1, int(float(read) * BINS)) for read in _stored(rows, concept))
        assert summary.scores[concept] == [bins[i] for i in range(BINS)]


def _stored(rows, concept):
    for record in manifest(rows).to_pylist():
        yield from (pair["score"] for pair in record["scores"] if pair["name"] == concept)


def test_the_share_in_pictures_drawn_counts_those_that_a_further_seed_replaced():
    summary = Summary()
    summary.add(manifest([row(i, [judged(1, cat=0.9), judged(2, cat=0.1)]) for i in range(10)]), WORDS)
    assert summary.rate("cat")[0] == 0.5


def test_failed_samples_count_for_the_concepts_that_their_prompts_name():
    prompts = ["two Kittens", "a catalogue", "a hot-dog and a cat", "a dog"]
    summary = Summary()
    summary.add(manifest([row(i, [failed(0, "blank")], prompt) for i, prompt in enumerate(prompts)]), WORDS)
    assert summary.failed_naming == {"cat": 2, "hot dog": 1}
    assert summary.reasons == {"blank": 4}


@pytest.mark.parametrize("attempts", [[Attempt(seed=0, status=Status.ok)], [failed(0, "nan")]])
def test_without_an_audit_nothing_is_scored(attempts):
    summary = Summary()
    summary.add(manifest([row(0, attempts)]), Naming([]))
    assert (summary.samples, summary.attempts, summary.scores, summary.drawn) == (1, 1, {}, {})
