"""One planned shard in, one commit out. Knows nothing of Ray, of leases or of other workers.

The calling thread only drives the device: denoise, decode, look (audit). Behind it, threads encode pictures and one
more thread builds the tar and the manifest and commits them, while the caller is already at the next shard. At most
``PENDING`` shards are begun and not committed, one on the device and one with that thread: so memory stays bounded when
storage is slower than the device, and that is what a kill can cost. A tar's order is that of keys, in whatever order
sizes are drawn, so all pictures of a shard are held until it is drawn: as encoded bytes, and only those of
``UNENCODED`` batches, and of the one that is looked at, as pixels.

Invariant: everything that reaches the tar and the manifest is a function of (config, pinned recipe, planned shard,
environment). Nothing of who did it, when, or in which attempt gets there; that goes into the commit record alone.
"""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.audit.captions import caption, cut_off, without
from pipeline.audit.quality import Values
from pipeline.audit.verdict import Verdict
from pipeline.config.sections.audit import CaptionPolicy, CaptionUnread, Policy
from pipeline.config.sections.generation import Compile
from pipeline.corpus import (
    NO_CAPTION,
    Attempt,
    File,
    ManifestRow,
    RunRecord,
    Status,
    build_shard,
    commit_shard,
)
from pipeline.corpus.encode import encode_image
from pipeline.corpus.manifest import BAD_ROW
from pipeline.drawable import Drawable
from pipeline.errors import ConfigError
from pipeline.generation.engine import Batch
from pipeline.models.extent import Extent, Part, in_one
from pipeline.prompts import Looked, PlannedShard, Sample, further_seed
from pipeline.session import Session

PENDING = 2
UNENCODED = 2  # batches whose pictures wait for the threads that encode, before the device waits too
FAULTS = frozenset({"nan", "blank"})  # of one picture; further seeds may mend them
BREAK = re.compile(r"\s*[\t-\r\x1c-\x1f\x85]\s*")  # control characters that part words
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # and those that may hide inside one


@dataclass(kw_only=True)
class Outcome:
    """What has become of one sample so far; rewritten by each attempt at it."""

    sample: Sample
    bad: str | None = None  # why the row of its prompt cannot be drawn
    status: Status = Status.failed
    reason: str = ""
    verdict: Verdict | None = None
    caption: str | None = None  # None where nothing of the prompt is left
    gates: dict[str, float] = field(default_factory=dict)
    extent: Extent | None = None  # how far the prompt was read; None where it was not
    attempts: list[Attempt] = field(default_factory=list)
    image: Future[bytes] | None = None  # only of pictures that are kept somewhere
    quality: tuple[Future[list[Values]], int] | None = None  # of its batch, and its place there; None without a picture


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What one finished shard reports to whoever leased it. ``won`` is False where another attempt had committed."""

    shard: int
    won: bool
    counts: dict[str, int]
    images: int  # generated, attempts included
    seconds: float  # from lease to commit
    device_seconds: float


class Worker:
    """Generates, audits, encodes and commits planned shards of one pinned run on one device."""

    def __init__(
        self, session: Session, record: RunRecord, *, looked: Looked | None = None, accept_environment: bool = False
    ):
        """Take the session's model, with the pinned recipe, and where it is compiled, have it compiled for the sizes of
        the rows that were *looked* at.

        Raises ``ConfigError`` where model or environment are not those that the run was begun with: their bytes would
        differ from those already committed.
        """
        self.config = config = session.config
        self.record = record
        self.store, self.evidence = session.output.store, session.output.evidence
        session.pin(record)
        self.environment = session.environment()
        differing = record.environment_difference(self.environment)
        if differing and not accept_environment:
            raise ConfigError(
                f"{config.output.path}: begun in another environment ({'; '.join(differing)}), whose bytes may differ; "
                "run there, or go on here with --accept-environment, which is recorded"
            )
        self.concepts = session.concepts
        artifacts = session.artifacts(record.digest, accept_environment=accept_environment)
        compiled = config.generation.compile is not Compile.none
        sizes = session.sizes(looked or Looked()) if compiled else []  # while it has the model
        self.engine = session.engine(session.pinned_recipe(record), last=True, compiled=True, artifacts=artifacts)
        session.warm_up(self.engine, sizes)
        self.auditor = session.auditor
        self.quality = session.quality
        self._drawable = Drawable(self.engine, self.auditor)
        self._encoders = ThreadPoolExecutor(max(1, config.cluster.threads_per_worker), "encode")
        self._finisher = ThreadPoolExecutor(1, "commit")
        self._pending = threading.BoundedSemaphore(PENDING)

    def process(
        self,
        planned: PlannedShard,
        attempt: str,
        excluded: frozenset[str] = frozenset(),
        drew: Callable[[int], None] = lambda images: None,
        compiling: Callable[[bool], None] = lambda begun: None,
    ) -> Future[ShardResult]:
        """Generate *planned* on the calling thread; the future resolves once it is committed.

        ``attempt`` names this attempt and no other. ``excluded`` are keys of samples known to kill a worker: their
        slots are filled with padding and their rows say ``failed``, as do those of rows that cannot be drawn. ``drew``
        is called, on the calling thread, with the number of pictures of each batch, ``compiling`` when it begins (True)
        and when it ends (False) to compile or load what was not met before. Errors of generation are raised here, those
        of storage by the future.
        """
        self.engine.tell_of_compiling(compiling)
        started, compiled = time.monotonic(), self.engine.compiling_seconds
        self._pending.acquire()
        try:
            outcomes, images, device_seconds = self._generate(planned, excluded, drew)
            started += self.engine.compiling_seconds - compiled  # what was first met here: no work on this shard
        except BaseException:
            self._pending.release()
            raise
        future = self._finisher.submit(self._commit, planned, attempt, outcomes, images, started, device_seconds)
        future.add_done_callback(lambda _: self._pending.release())
        return future

    def probe(
        self,
        planned: PlannedShard,
        keys: frozenset[str],
        excluded: frozenset[str] = frozenset(),
        compiling: Callable[[bool], None] = lambda begun: None,
    ) -> None:
        """Generate only the samples *keys* of a shard, in their own slots, and write nothing: does it survive?"""
        self.engine.tell_of_compiling(compiling)
        others = frozenset(sample.key for sample in planned.samples) - keys
        self._generate(planned, excluded | others, lambda images: None)

    def redraw(
        self, planned: PlannedShard, excluded: frozenset[str], folder: Path, drew: Callable[[int], object]
    ) -> dict[str, tuple[File, Path]]:
        """Generate a shard as ``process`` does and build its files, by name, in the local *folder*; commit nothing."""
        outcomes, _, _ = self._generate(planned, excluded, drew)
        rows = [self._row(outcome) for outcome in outcomes]
        _, built = build_shard(
            folder,
            planned.index,
            rows,
            _encoded(outcomes),
            self._columns(planned),
            self.record.format,
            self.record.quality_schema,
        )
        return {file.name: (file, local) for file, local in built}

    def close(self) -> None:
        """Wait for the commits under way."""
        self._finisher.shutdown(wait=True)
        self._encoders.shutdown(wait=True)

    def _generate(
        self, planned: PlannedShard, excluded: frozenset[str], drew: Callable[[int], object]
    ) -> tuple[list[Outcome], int, float]:
        bad = {sample.key: why for sample in planned.samples if (why := self._drawable.fault(sample)) is not None}
        drawn = [self._drawable.placed(sample) for sample in planned.samples]
        outcomes = {sample.key: Outcome(sample=sample, bad=bad.get(sample.key)) for sample in drawn}
        excluded = excluded | bad.keys()
        images, device_seconds = 0, 0.0
        tries = 1 + (self.config.audit.attempts if self.config.audit.policy is Policy.regenerate else 0)
        samples: Sequence[Sample] = drawn
        unencoded: deque[list[Future[bytes]]] = deque()
        for attempt in range(tries):
            seeds = [further_seed(sample, attempt) for sample in samples]
            for batch in self.engine.generate(samples, seeds=seeds, excluded=excluded):
                device_seconds += batch.device_seconds
                images += len(batch.samples)
                self._judge(batch, attempt, outcomes)
                drew(len(batch.samples))
                made = (outcomes[sample.key].image for sample in batch.samples)
                unencoded.append([image for image in made if image is not None])
                if len(unencoded) > UNENCODED:
                    wait(unencoded.popleft())
            samples = [sample for sample in samples if self._again(outcomes[sample.key])]
            if not samples:
                break
        return list(outcomes.values()), images, device_seconds

    @staticmethod
    def _again(outcome: Outcome) -> bool:
        return outcome.status is Status.quarantined or outcome.reason in FAULTS

    def _judge(self, batch: Batch, attempt: int, outcomes: dict[str, Outcome]) -> None:
        """Look at one batch and record what becomes of each picture in it."""
        verdicts: Iterable[Verdict | None] = [None] * len(batch.samples)
        if self.auditor is not None:
            verdicts = self.auditor.judge(batch.images)
        for i, (sample, verdict) in enumerate(zip(batch.samples, verdicts, strict=True)):
            outcome = outcomes[sample.key]
            outcome.gates = {name: float(scores[i]) for name, scores in batch.gates.items()}
            outcome.extent = batch.extents[i]
            outcome.verdict = None if batch.faults[i] else verdict
            outcome.status, outcome.reason = self._status(batch.faults[i], outcome.verdict)
            outcome.caption = self._caption(outcome)
            if outcome.caption is None and outcome.status is Status.ok:
                outcome.status = Status.dropped
                outcome.reason = ",".join(filter(None, (outcome.reason, NO_CAPTION)))
            if outcome.bad is not None:
                outcome.reason = f"{BAD_ROW}{outcome.bad}"
            scores = outcome.verdict.scores if outcome.verdict else {}
            seed = further_seed(sample, attempt)
            outcome.attempts.append(Attempt(seed=seed, status=outcome.status, reason=outcome.reason, scores=scores))
            kept = outcome.status in (Status.ok, Status.quarantined)
            outcome.image = self._encoders.submit(self._encode, batch.images[i]) if kept else None
        if self.quality is not None:
            told = [outcomes[sample.key] for sample in batch.samples]
            values = self.quality.look(batch.images, [outcome.caption or "" for outcome in told], self._encoders)
            for i, outcome in enumerate(told):
                outcome.quality = None if batch.faults[i] else (values, i)

    def _status(self, fault: str | None, verdict: Verdict | None) -> tuple[Status, str]:
        if fault is not None:
            return Status.failed, fault
        if verdict is None or not verdict.found:
            return Status.ok, ""
        reason = ",".join(verdict.found)
        match self.config.audit.policy:
            case Policy.keep:
                return Status.ok, reason
            case Policy.drop:
                return Status.dropped, reason
            case _:
                return Status.quarantined, reason

    def _caption(self, outcome: Outcome) -> str | None:
        anchors = outcome.verdict.anchors if outcome.verdict else frozenset()
        audit, extent = self.config.audit, outcome.extent
        parts: tuple[Part, ...] = (Part(outcome.sample.prompt),)
        if extent is not None:
            parts = extent.said if audit.caption_unread is CaptionUnread.drop else extent.asked
        texts = []
        for part in parts:
            silent = part.silent if audit.captions is not CaptionPolicy.keep else ()
            if (told := without(part.text, silent, audit.caption_subject)) is None:
                return None
            told = CONTROL.sub("", BREAK.sub(" ", told)).strip()
            texts.append(cut_off(told) if part.cut else told)
        text = in_one(texts)
        if extent is not None and not text:  # of what was read, or of a prompt of syntax alone
            return audit.caption_subject
        return caption(text, self.concepts, audit.captions, anchors, audit.caption_subject)

    def _encode(self, image: np.ndarray) -> bytes:
        return encode_image(image, self.config.output.image_format, self.config.output.quality)

    def _commit(
        self,
        planned: PlannedShard,
        attempt: str,
        outcomes: list[Outcome],
        images: int,
        started: float,
        device_seconds: float,
    ) -> ShardResult:
        """Build tar and manifest and commit them (on the finisher's thread)."""
        rows = [self._row(outcome) for outcome in outcomes]
        timings = {"device_seconds": device_seconds, "seconds": time.monotonic() - started, "images": images}
        result = commit_shard(
            self.store,
            self.evidence,
            shard=planned.index,
            attempt=attempt,
            rows=rows,
            images=_encoded(outcomes),
            columns=self._columns(planned),
            identity=self.record.digest,
            corpus_format=self.record.format,
            environment=self.environment,
            timings=timings,
            quality=self.record.quality_schema,
        )
        counts = result.record.counts
        return ShardResult(
            shard=planned.index,
            won=result.won,
            counts=counts,
            images=images,
            seconds=time.monotonic() - started,
            device_seconds=device_seconds,
        )

    def _columns(self, planned: PlannedShard) -> pa.Table | None:
        return planned.columns if self.record.column_schema.names else None

    def _row(self, outcome: Outcome) -> ManifestRow:
        sample, verdict = outcome.sample, outcome.verdict
        return ManifestRow(
            key=sample.key,
            shard=sample.shard,
            prompt=sample.prompt,
            negative_prompt=sample.negative_prompt,
            caption=outcome.caption or "",
            seed=outcome.attempts[-1].seed,
            width=sample.width,
            height=sample.height,
            gates=outcome.gates,
            scores=verdict.scores if verdict else {},
            judged=verdict.judged if verdict else (),
            status=outcome.status,
            reason=outcome.reason,
            attempts=tuple(outcome.attempts),
            tokens_read=None if outcome.extent is None else outcome.extent.read,
            tokens_unread=None if outcome.extent is None else outcome.extent.unread,
            quality=_values(outcome),
        )


def _values(outcome: Outcome) -> Values:
    if outcome.quality is None:
        return {}
    batch, place = outcome.quality
    return batch.result()[place]


def _encoded(outcomes: Sequence[Outcome]) -> dict[str, bytes]:
    return {o.sample.key: o.image.result() for o in outcomes if o.image is not None}
