"""What a corpus amounts to, counted from commit records and manifests: the figures of status, card and report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.manifest import found, read_manifest
from pipeline.corpus.stores import Store
from pipeline.statistics import wilson

BINS = 20  # of the score histograms, over [0, 1]


@dataclass
class Summary:
    """``statuses``: samples per status. ``found[status][concept]``: samples of that status whose last picture showed
    the concept. ``scores[concept]``: histogram of the last pictures' scores. ``reasons``: why samples failed."""

    statuses: Counter[str] = field(default_factory=Counter)
    found: dict[str, Counter[str]] = field(default_factory=dict)
    scores: dict[str, list[int]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    drawn: Counter[str] = field(default_factory=Counter)  # audited pictures per concept, all attempts
    drawn_with: Counter[str] = field(default_factory=Counter)  # of these, those that showed it

    def add_attempt(self, reason: str, scores: dict[str, float]) -> None:
        """Count one drawn picture, whether it was used at last or replaced by a further seed."""
        self.attempts += 1
        self.drawn.update(scores.keys())
        self.drawn_with.update(found(reason, scores))

    def add(self, status: str, reason: str, scores: dict[str, float]) -> None:
        self.statuses[status] += 1
        if status == "failed":
            self.reasons[reason] += 1
        for concept in found(reason, scores):
            self.found.setdefault(status, Counter())[concept] += 1
        for concept, score in scores.items():
            self.scores.setdefault(concept, [0] * BINS)[min(BINS - 1, int(score * BINS))] += 1

    @property
    def samples(self) -> int:
        return self.statuses.total()

    def residual(self, concept: str) -> tuple[float, float, float]:
        """Share of the kept pictures in which the audit found *concept*, with its Wilson 95 % interval."""
        hits, kept = self.found.get("ok", Counter())[concept], self.statuses["ok"]
        low, high = wilson(hits, kept)
        return (hits / kept if kept else 0.0), low, high

    def rate(self, concept: str) -> tuple[float, float, float]:
        """Share of all audited pictures in which the audit found *concept*, with its interval: what the erasure let
        through before the policy acted."""
        hits, audited = self.drawn_with[concept], self.drawn[concept]
        low, high = wilson(hits, audited)
        return (hits / audited if audited else 0.0), low, high


def summarise(store: Store, records: Sequence[CommitRecord]) -> Summary:
    """Count the manifests of the committed shards."""
    summary = Summary()
    for record in records:
        table = read_manifest(
            store.read(layout.manifest(record.shard)), columns=["status", "reason", "scores", "attempts"]
        )
        for row in table.to_pylist():
            summary.add(row["status"], row["reason"], _by_name(row["scores"]))
            for attempt in row["attempts"]:
                summary.add_attempt(attempt["reason"], _by_name(attempt["scores"]))
    return summary


def _by_name(pairs: list[dict[str, Any]]) -> dict[str, float]:
    return {pair["name"]: pair["score"] for pair in pairs}
