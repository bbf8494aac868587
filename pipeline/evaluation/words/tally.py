"""How often each concept was seen in the pictures of each word."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from pipeline.corpus import Status
from pipeline.evaluation.words.questions import Question
from pipeline.evaluation.words.verdict import Table


@dataclass(frozen=True)
class Row:
    """What became of a question: where its picture lies in the tar of its shard (bytes; None where it failed), and
    which concepts were *seen* in it, by their keys."""

    key: str
    question: Question
    offset: int | None
    length: int | None
    sha256: str | None
    seen: frozenset[str]

    @classmethod
    def of(cls, row: Mapping[str, Any], own: Mapping[str, str], later: Iterable[Mapping[str, Sequence[str]]]) -> Self:
        """Read a *row* of a manifest. *own* are the keys of the sweep's concepts by their names, *later* what others
        saw, by the picture's key."""
        drawn = row["status"] == Status.ok
        seen = {own[name] for name in row["reason"].split(",") if name in own} if drawn else set()
        return cls(
            row["key"],
            Question(row["word"], row["number"]),
            row["offset"] if drawn else None,
            row["length"],
            row["sha256"],
            frozenset(seen.union(*(found.get(row["key"], ()) for found in later))),
        )

    def with_seen(self, seen: Collection[str]) -> "Row":
        """Return the row with what another eye has *seen*."""
        return replace(self, seen=frozenset(seen))


class Tally:
    """How often each of *concepts* was seen in the pictures of each word; a picture that failed counts as asked.

    *keys* are those of the concepts in ``Row.seen``.
    """

    def __init__(self, concepts: Sequence[str], keys: Sequence[str]):
        self.concepts, self.keys = tuple(concepts), tuple(keys)
        self._asked: set[Question] = set()
        self._pictures: Counter[str] = Counter()
        self._seen: Counter[tuple[str, str]] = Counter()

    def add(self, rows: Iterable[Row]) -> None:
        """Count *rows*; a question that was counted is passed over."""
        for row in rows:
            if row.question in self._asked:
                continue
            self._asked.add(row.question)
            if row.offset is not None:
                self._pictures[row.question.word] += 1
                self._seen.update((row.question.word, key) for key in row.seen)

    @property
    def words(self) -> list[str]:
        """All words of which there are pictures, sorted."""
        return sorted(self._pictures)

    def missing(self, questions: Iterable[Question]) -> list[Question]:
        """Return those of *questions* that nothing answers, sorted."""
        return sorted(set(questions) - self._asked)

    def counts(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return hits and pictures of *words*, each ``(words, concepts)``, int64."""
        hits = np.array([[self._seen[word, key] for key in self.keys] for word in words], dtype=np.int64)
        pictures = np.array([self._pictures[word] for word in words], dtype=np.int64)
        shape = (len(words), len(self.keys))
        return hits.reshape(shape), np.broadcast_to(pictures[:, None], shape)

    def table(self, words: Sequence[str], rounds: int) -> Table:
        """Return the table of *words*; the concepts' own names, which it is measured by, must have been asked too."""
        hits, pictures = self.counts(words)
        own_hits, own_pictures = self.counts(self.concepts)
        return Table(hits, pictures, np.diagonal(own_hits) / np.maximum(1, np.diagonal(own_pictures)), rounds)
