"""Where the pictures of words are kept, and which concepts were seen in them.

    CACHE/KEY/questions/EYE/DIGEST.parquet   what was asked, as a source of prompts
    CACHE/KEY/sweeps/EYE/DIGEST/             the corpus of it: unerased, audited, everything kept
    CACHE/KEY/judged/EYE/DIGEST/SHARD-*.json what was seen later in pictures of a sweep, for concepts of other lists

KEY stands for all that decides what is drawn of a word: the bytes of the model and its adapters, and how it is sampled.
EYE stands for all that decides what is seen in it: the detector, its options and thresholds, its weights and the files
that its options name. So every vocabulary, every round and every list finds what others drew, and a list with concepts
that nobody looked for, or another eye, has only to look. A sweep is a corpus like any other, so whatever dies while it
is drawn, what is committed counts, and the rest is gone on with.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipeline.audit.auditor import Auditor
from pipeline.audit.detector import files_digest, named_files
from pipeline.config.concepts import concepts_of
from pipeline.config.identity import SEMANTICS, leaves
from pipeline.config.places import content
from pipeline.config.problem import under
from pipeline.config.schema import (
    ConceptConfig,
    Config,
    ErasureConfig,
    ErasureList,
    ImageFormat,
    OutputConfig,
    PromptsConfig,
)
from pipeline.config.sections.audit import CaptionPolicy, Policy
from pipeline.config.sections.declare import settings
from pipeline.config.sections.generation import Compile
from pipeline.config.shape import build
from pipeline.corpus import RunRecord, Store, committed_shards, layout, open_store, read_run_record
from pipeline.corpus.manifest import read_manifest
from pipeline.errors import ConfigError
from pipeline.evaluation.words.questions import Question, prompts_file, read_questions
from pipeline.evaluation.words.tally import Row, Tally
from pipeline.models.find import find_model
from pipeline.parallel import in_parallel
from pipeline.prompts import Plan, open_source

QUESTIONS, SWEEPS, JUDGED = "questions", "sweeps", "judged"
SHARD = 256  # pictures
COLUMNS = ("key", "word", "number", "status", "reason", "offset", "length", "sha256")
# Settings on which depends what a word draws, and what is seen in it.
DRAWS = ("model.", "generation.")
DRAWS_NOT = ("model.path", "model.revision", "model.variant", "generation.batch_size", "generation.compile")
SEES = "audit."
SEES_NOT = (
    "audit.policy", "audit.attempts", "audit.captions", "audit.caption_subject", "audit.caption_unread",
    "audit.unjudged",
)  # fmt: skip
# Fields of a concept by which nobody looks for it: a picture is asked for what the name says.
SAID = ("aliases", "anchor", "preserve", "keep", "proven", "implied", "ignore")


@dataclass(frozen=True)
class SweptShard:
    """A committed shard of the sweep *digest*: its *rows*, and the concepts (``key_of``) that the eye looked for."""

    digest: str
    shard: int
    store: Store
    rows: tuple[Row, ...]
    looked_for: frozenset[str]


class WordCache:
    """The sweeps of one model and one way of sampling, as one detector sees them: that of *config*, which is settled
    (without "auto"), for the concepts that it lists."""

    def __init__(self, config: Config):
        self.config = replace(config, audit=replace(config.audit, quality=[]))  # which proves no word
        self.concepts = [bare(concept) for concept in config.erasure.concepts]
        self.keys = [key_of(_fields(concept)) for concept in self.concepts]
        self.url = f"{config.words.cache.rstrip('/')}/{self._key()}"
        self._options = config.output.storage_options
        self._store = open_store(self.url, self._options)

    @cached_property
    def auditor(self) -> Auditor:
        """Who looks, on the CPU. Raises ``ConfigError`` where nobody does, or who does cannot judge the list."""
        auditor = self.load_auditor("cpu")
        if auditor is None:
            raise ConfigError("audit.detectors: is empty, and words are proved by what a detector sees; expected one")
        return auditor

    def load_auditor(self, device: str) -> Auditor | None:
        """Return who looks for the concepts, on *device*; None where nobody is to."""
        return Auditor.load(self.config.audit, concepts_of(ErasureConfig(concepts=self.concepts)), device)

    @cached_property
    def eye(self) -> str:
        """What stands for the detectors in the names of files. Raises ``ConfigError`` where they cannot be had."""
        facts = [(eye.name, eye.witness, eye.sha256, eye.about()) for eye in self.auditor.eyes]
        return _digest([self._settings((SEES,), SEES_NOT), facts])

    @property
    def judged(self) -> list[tuple[ConceptConfig, str]]:
        """The concepts that somebody judges, with their keys."""
        pairs = zip(self.concepts, self.keys, strict=True)
        return [(concept, key) for concept, key in pairs if concept.name in self.auditor.names]

    @property
    def judged_names(self) -> list[str]:
        return [concept.name for concept, _ in self.judged]

    def is_empty(self) -> bool:
        """Was nothing drawn with this model and way of sampling? Told without the detectors, which may be elsewhere."""
        return next(self._store.list(QUESTIONS), None) is None

    def sweep(self, questions: Collection[Question]) -> Config:
        """Return the config of a corpus that draws *questions*; its prompts are written."""
        asked = [f"{q.number} {q.word}" for q in sorted(questions)]
        digest = _digest([asked, self.keys])
        name = self._questions(digest)
        if not self._store.exists(name):
            self._store.write(name, prompts_file(questions))
        return self._sweep(digest, self.concepts)

    def unfinished(self, tally: Tally) -> Iterator[tuple[Config, list[Question]]]:
        """Yield the sweeps that were begun and not finished, by whatever list, with what they have still to draw.

        Not those that were begun with what a config cannot say any more, such as the model at another place: what is
        committed of them counts, and they stay as they are.
        """
        for digest, store, run in self._sweeps(self.eye):
            if len(committed_shards(store)) == run.shards:
                continue
            known = {field.name for field in settings(ConceptConfig)}
            given = [
                {key: value for key, value in concept.items() if key in known}
                for concept in run.config["erasure"]["concepts"]
            ]
            listed = build(ErasureList, {"concepts": given}).concepts
            config = self._sweep(digest, listed)
            if Plan.build(config, open_source(config.prompts)).identity.digest == run.digest:
                yield config, tally.missing(read_questions(self._store.read(self._questions(digest))))

    def tally(self) -> Tally:
        """Count what was seen of the concepts in all pictures in which somebody looked for each of them."""
        tally = Tally([concept.name for concept in self.concepts], self.keys)
        judged = {key for _, key in self.judged}
        for part in self.parts():
            if part.looked_for >= judged:
                tally.add(part.rows)
        return tally

    def unjudged(self) -> list[tuple[SweptShard, list[ConceptConfig]]]:
        """Return the shards in which nobody looked for some concept, with these concepts."""
        found = []
        for part in self.parts():
            lacking = [concept for concept, key in self.judged if key not in part.looked_for]
            if lacking:
                found.append((part, lacking))
        return found

    def write_judged(
        self, part: SweptShard, concepts: Sequence[ConceptConfig], seen: Mapping[str, Sequence[str]]
    ) -> None:
        """Keep what was *seen* in the pictures of *part*, by their keys: which of *concepts*, by name."""
        keys = {concept.name: key_of(_fields(concept)) for concept in concepts}
        record = {
            "concepts": list(keys.values()),
            "seen": {key: [keys[name] for name in names] for key, names in seen.items() if names},
        }
        name = f"{part.shard:06d}-{_digest(record['concepts'])}.json"
        self._store.write(f"{JUDGED}/{self.eye}/{part.digest}/{name}", json.dumps(record).encode())

    def parts(self) -> list[SweptShard]:
        """Return all committed shards of all sweeps."""
        judged: dict[tuple[str, int], list[str]] = {}
        for entry in self._store.list(f"{JUDGED}/{self.eye}"):
            digest, name = entry.path.split("/")[-2:]
            judged.setdefault((digest, int(name.partition("-")[0])), []).append(entry.path)
        wanted: list[tuple[str, Store, int, dict[str, str]]] = []
        for eye in self._eyes():
            for digest, store, run in self._sweeps(eye):
                listed = _listed(run.identity) if eye == self.eye else []
                own = {concept["name"]: key_of(concept) for concept in listed}
                wanted += [(digest, store, shard, own) for shard in committed_shards(store)]

        def part(digest: str, store: Store, shard: int, own: Mapping[str, str]) -> SweptShard:
            later = [json.loads(self._store.read(path)) for path in judged.get((digest, shard), ())]
            manifest = read_manifest(store.read(layout.manifest(shard)), columns=COLUMNS).to_pylist()
            rows = tuple(Row.of(row, own, [one["seen"] for one in later]) for row in manifest)
            return SweptShard(
                digest, shard, store, rows, frozenset(own.values()).union(*(one["concepts"] for one in later))
            )

        return list(in_parallel(lambda one: part(*one), wanted))

    def _sweep(self, digest: str, concepts: Sequence[ConceptConfig]) -> Config:
        contents = {key: value for key, value in self.config.contents.items() if not key.startswith("erasure.")}
        for i, concept in enumerate(concepts):
            contents |= _contents(concept, f"erasure.concepts[{i}]")
        return replace(
            self.config,
            generation=replace(self.config.generation, compile=Compile.none),  # counts need no minute of it
            erasure=ErasureConfig(concepts=list(concepts)),
            prompts=PromptsConfig(
                source=f"{self.url}/{self._questions(digest)}",
                columns={"prompt": "prompt", "seed": "seed", "pass": ["word", "number"]},
            ),
            audit=replace(self.config.audit, policy=Policy.keep, captions=CaptionPolicy.keep),
            output=OutputConfig(
                path=f"{self.url}/{SWEEPS}/{self.eye}/{digest}",
                image_format=ImageFormat.png,
                samples_per_shard=SHARD,
                storage_options=self._options,
            ),
            written={},
            contents=contents,
        )

    def _eyes(self) -> list[str]:
        return sorted({entry.path.split("/")[-2] for entry in self._store.list(QUESTIONS)})

    def _sweeps(self, eye: str) -> Iterator[tuple[str, Store, RunRecord]]:
        """Yield the sweeps that *eye* has begun: digest, store and what was pinned."""
        for entry in self._store.list(f"{QUESTIONS}/{eye}"):
            digest = entry.path.rpartition("/")[2].removesuffix(".parquet")
            store = open_store(f"{self.url}/{SWEEPS}/{eye}/{digest}", self._options)
            if (run := read_run_record(store)) is not None:
                yield digest, store, run

    def _questions(self, digest: str) -> str:
        return f"{QUESTIONS}/{self.eye}/{digest}.parquet"

    def _key(self) -> str:
        what = self._settings(DRAWS, DRAWS_NOT)
        what["revision"] = find_model(self.config.model).revision(self.config.model.variant)
        what["files"] = files_digest(named_files([adapter.path for adapter in self.config.model.adapters]))
        what["semantics"] = SEMANTICS
        return _digest(what)

    def _settings(self, of: tuple[str, ...], without: tuple[str, ...]) -> dict[str, Any]:
        found = leaves(self.config, written=self.config.contents)
        identity = {key: value for key, value, is_identity in found if is_identity}
        return {key: value for key, value in identity.items() if key.startswith(of) and key not in without}


def bare(concept: ConceptConfig) -> ConceptConfig:
    """Return *concept* as it is looked for in pictures, without what a list says of it."""
    plain = vars(ConceptConfig(name=concept.name))
    return replace(concept, **{name: plain[name] for name in SAID})


def key_of(concept: Mapping[str, Any]) -> str:
    """Return what tells a concept, given by its fields as an identity has them, from others that are looked for: its
    name, and what of it is not as it is by default."""
    name = concept["name"]
    plain = _fields(ConceptConfig(name=name))
    rest = {k: v for k, v in concept.items() if k in plain and k not in SAID and v != plain[k]}
    return str(name) if not rest else f"{name} {json.dumps(rest, sort_keys=True)}"


def _fields(concept: ConceptConfig) -> dict[str, Any]:
    """Return the fields of *concept* as an identity has them."""
    return {key: value for key, value, _ in leaves(concept, written=_contents(concept, ""))}


def _contents(concept: ConceptConfig, key: str) -> dict[str, str]:
    """Return what stands for each of a concept's files in an identity, by its key there."""
    return {f"{under(key, 'references')}[{j}]": content(path) for j, path in enumerate(concept.references)}


def _listed(identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of the concepts of a corpus with this *identity*."""
    listed: dict[str, dict[str, Any]] = {}
    for key, value in identity.items():
        head, found, field = key.rpartition("].")
        if found and head.startswith("erasure.concepts["):
            listed.setdefault(head, {})[field] = value
    return list(listed.values())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
