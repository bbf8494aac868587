"""Where the pictures of words are kept, and how often each concept was seen in them.

    CACHE/KEY/questions/DIGEST.parquet   what was asked, as a source of prompts
    CACHE/KEY/sweeps/DIGEST/             the corpus of it: unerased, audited, everything kept

KEY stands for all that decides what is drawn of a word and what is seen in it: the bytes of the model and its adapters,
how it is sampled, the detector and the files that its options name. So every vocabulary, every round and every list of
concepts that were looked for finds what others drew. A sweep is a corpus like any other, so whatever dies while it is
drawn, the same command goes on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.audit.detector import files_digest, named_files
from pipeline.concepts.term import Kind
from pipeline.config.identity import SEMANTICS, leaves
from pipeline.config.schema import (
    CaptionPolicy,
    ConceptConfig,
    Config,
    ErasureConfig,
    ImageFormat,
    OutputConfig,
    Policy,
    PromptsConfig,
)
from pipeline.corpus import Status, Store, committed_shards, layout, open_store, read_run_record
from pipeline.corpus.manifest import read_manifest
from pipeline.evaluation.words.questions import Question, prompts_file
from pipeline.evaluation.words.verdict import Table
from pipeline.models.find import find_model
from pipeline.parallel import in_parallel

QUESTIONS, SWEEPS = "questions", "sweeps"
SHARD = 256  # pictures
COLUMNS = ("word", "number", "status", "reason")
# Settings on which depends what a word draws, and what is seen in it.
DECIDE = ("model.", "generation.", "audit.detectors", "audit.combine")
DECIDE_NOT = ("model.path", "model.revision", "model.variant", "generation.batch_size")


class WordCache:
    """The sweeps of one model, one way of sampling and one detector. *config* is settled: without "auto"."""

    def __init__(self, config: Config, url: str):
        self.config = config
        self.url = f"{url.rstrip('/')}/{self._key()}"
        self._store = open_store(self.url, config.output.storage_options)

    def sweep(self, questions: Collection[Question]) -> Config:
        """Return the config of a corpus that draws *questions* and looks for the config's concepts; its prompts are
        written."""
        concepts = [concept.name for concept in self.config.erasure.concepts]
        data = prompts_file(questions)
        asked = [f"{q.number} {q.word}" for q in sorted(questions)]
        digest = hashlib.sha256(json.dumps([asked, concepts]).encode()).hexdigest()[:16]
        name = f"{QUESTIONS}/{digest}.parquet"
        if not self._store.exists(name):
            self._store.write(name, data)
        return replace(
            self.config,
            erasure=ErasureConfig(concepts=self._concepts()),
            prompts=PromptsConfig(
                source=f"{self.url}/{name}",
                columns={"prompt": "prompt", "seed": "seed", "pass": ["word", "number"]},
            ),
            audit=replace(self.config.audit, policy=Policy.keep, captions=CaptionPolicy.keep),
            output=OutputConfig(
                path=f"{self.url}/{SWEEPS}/{digest}",
                image_format=ImageFormat.png,
                samples_per_shard=SHARD,
                storage_options=self.config.output.storage_options,
            ),
            written={},
        )

    def tally(self, concepts: Sequence[str]) -> "Tally":
        """Count what the finished sweeps have seen of *concepts*."""
        tally = Tally(concepts)
        for entry in self._store.list(QUESTIONS):
            digest = entry.path.removeprefix(f"{QUESTIONS}/").removesuffix(".parquet")
            store = open_store(f"{self.url}/{SWEEPS}/{digest}", self.config.output.storage_options)
            run = read_run_record(store)
            if run is None or len(shards := committed_shards(store)) < run.shards:
                continue
            judged = [concept["name"] for concept in run.config["erasure"]["concepts"]]
            if not set(concepts) <= set(judged):
                continue

            def rows(shard: int, store: Store = store) -> list[dict[str, Any]]:
                manifest = read_manifest(store.read(layout.manifest(shard)), columns=COLUMNS)
                return list(manifest.to_pylist())

            for part in in_parallel(rows, shards):
                tally.add(part)
        return tally

    def _concepts(self) -> list[ConceptConfig]:
        """Return the concepts without the words that the list has for them: what these draw is the question."""
        return [
            ConceptConfig(name=c.name, kind=c.kind, references=c.references, audit=c.audit)
            for c in self.config.erasure.concepts
        ]

    def _key(self) -> str:
        contents = self.config.contents
        settings = {key: value for key, value, is_identity in leaves(self.config, written=contents) if is_identity}
        what = {key: value for key, value in settings.items() if key.startswith(DECIDE) and key not in DECIDE_NOT}
        what["revision"] = find_model(self.config.model).revision(self.config.model.variant)
        adapters = [adapter.path for adapter in self.config.model.adapters]
        options = [value for detector in self.config.audit.detectors for value in detector.options.values()]
        what["files"] = files_digest(named_files([*adapters, *options]))
        # Of most concepts a detector is told the name alone, which stands in each sweep.
        pictures = {key: value for key, value in contents.items() if key.startswith("erasure.")}
        kinds = {c.name: str(c.kind) for c in self.config.erasure.concepts if c.kind is not Kind.object}
        what |= {"pictures": pictures, "kinds": kinds}
        what["semantics"] = SEMANTICS
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


class Tally:
    """How often each of *concepts* was seen in the pictures of each word; a picture that failed counts as asked."""

    def __init__(self, concepts: Sequence[str]):
        self.concepts = tuple(concepts)
        self._asked: set[Question] = set()
        self._pictures: Counter[str] = Counter()
        self._seen: Counter[tuple[str, str]] = Counter()

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Count the rows of a sweep's manifest; a question that was counted is passed over."""
        for row in rows:
            question = Question(row["word"], row["number"])
            if question in self._asked:
                continue
            self._asked.add(question)
            if row["status"] == Status.ok:
                self._pictures[question.word] += 1
                self._seen.update((question.word, name) for name in row["reason"].split(",") if name)

    @property
    def words(self) -> list[str]:
        """All words of which there are pictures, sorted."""
        return sorted(self._pictures)

    def missing(self, questions: Iterable[Question]) -> list[Question]:
        """Return those of *questions* that no finished sweep answers."""
        return sorted(set(questions) - self._asked)

    def counts(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return hits and pictures of *words*, each ``(words, concepts)``, int64."""
        hits = np.array([[self._seen[word, name] for name in self.concepts] for word in words], dtype=np.int64)
        pictures = np.array([self._pictures[word] for word in words], dtype=np.int64)
        shape = (len(words), len(self.concepts))
        return hits.reshape(shape), np.broadcast_to(pictures[:, None], shape)

    def table(self, words: Sequence[str], rounds: int) -> Table:
        """Return the table of *words*; the concepts' own names, which it is measured by, must have been asked too."""
        hits, pictures = self.counts(words)
        own_hits, own_pictures = self.counts(self.concepts)
        return Table(hits, pictures, np.diagonal(own_hits) / np.maximum(1, np.diagonal(own_pictures)), rounds)
