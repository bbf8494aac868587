"""The commit of a shard: the one decision by which it exists, on local disk and on object stores alike.

1. Write all files of the attempt under ``attempts/SHARD-ATTEMPT/`` (nobody else writes there).
2. Create ``commits/SHARD.json``, naming that attempt, only if absent: the one point of decision. If it is there
   already, read it: if it names this attempt (a request whose answer was lost), go on; else drop this attempt.
3. Publish: copy the winner's files to their final names. Idempotent; redone by whoever finds it undone.
4. Remove the attempt: that it is gone says that step 3 was completed.

Invariant: final names are written in step 3 only, from an attempt that a commit record names. So a reader that globs
``train/*.tar`` never sees a torn or superseded tar, however many late, hung or doubled workers there are; and a crash
between any two calls leaves either no record (nothing happened) or a record and its attempt (``publish_all`` goes on
at 3). A repair writes to a final name too, but the very bytes that the record names.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.corpus import layout
from pipeline.corpus.manifest import NO_COLUMNS, ManifestRow, Status, schema_of, write_manifest
from pipeline.corpus.shard import Digest, build_tar
from pipeline.corpus.stores import Store, create_or_read
from pipeline.errors import CorpusError, StoreError
from pipeline.parallel import in_parallel


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a shard. ``name`` is its final path in the corpus or, with ``evidence``, in the evidence."""

    name: str
    size: int
    sha256: str
    md5: str
    evidence: bool = False


@dataclass(frozen=True, kw_only=True)
class CommitRecord:
    """``commits/SHARD.json``. ``counts`` are samples per status; ``timings`` are seconds, and ``images`` drawn.

    ``committed_at`` is in seconds since 1970, by the clock of the worker; 0 where it was not written down yet.
    """

    shard: int
    attempt: str
    identity: str
    counts: dict[str, int]
    files: tuple[File, ...]
    environment: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    committed_at: float = 0.0
    format: int = layout.FORMAT

    def dumps(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode()

    @classmethod
    def loads(cls, data: bytes, path: str) -> "CommitRecord":
        """Raise ``CorpusError`` for what is no record of a format that is known."""
        try:
            values = json.loads(data)
            layout.check_format(values["format"], path)
            files = tuple(File(**file) for file in values.pop("files"))
            return cls(**values, files=files)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorpusError(
                f"{path}: not a commit record ({error}); delete it, and the same `lacuna run`, or `lacuna repair`, "
                "draws its shard again"
            ) from error

    def file(self, name: str) -> File | None:
        return next((file for file in self.files if file.name == name), None)


@dataclass(frozen=True, kw_only=True)
class CommitResult:
    """``won`` is False where another attempt had decided the shard; ``record`` is the one that stands."""

    won: bool
    record: CommitRecord


def commit_shard(
    store: Store,
    evidence: Store,
    *,
    shard: int,
    attempt: str,
    rows: Sequence[ManifestRow],
    images: Mapping[str, bytes],
    columns: pa.Table | None,
    identity: str,
    corpus_format: int,
    environment: Mapping[str, Any],
    timings: Mapping[str, float],
    quality: pa.Schema = NO_COLUMNS,
) -> CommitResult:
    """Build the files of one shard and commit them under the protocol above.

    ``rows`` come in the order of their keys. ``images`` are encoded pictures by key, for every row that is ok or
    quarantined; ``columns`` pass through to the manifest, a row for each of *rows*, and those of ``quality`` are of the
    rows' own. ``identity`` and ``corpus_format`` are those of the run.
    """
    folder = layout.attempt(shard, attempt)
    with tempfile.TemporaryDirectory(prefix="lacuna-") as scratch:
        placed, built = build_shard(Path(scratch), shard, rows, images, columns, corpus_format, quality)
        for file, local in built:
            where = evidence if file.evidence else store
            _check_copyable(where, file.name, file.size)
            where.write(f"{folder}/{file.name}", local)
    files = [file for file, _ in built]
    record = CommitRecord(
        shard=shard,
        attempt=attempt,
        identity=identity,
        counts={status.value: sum(row.status is status for row in placed) for status in Status},
        files=tuple(files),
        environment=dict(environment),
        timings=dict(timings),
        committed_at=time.time(),
        format=corpus_format,
    )
    standing = create_once(store, record)
    if standing.attempt == attempt:
        publish(store, evidence, standing)
        return CommitResult(won=True, record=standing)
    _drop(store, evidence, folder)
    return CommitResult(won=False, record=standing)


def build_shard(
    folder: Path,
    shard: int,
    rows: Sequence[ManifestRow],
    images: Mapping[str, bytes],
    columns: pa.Table | None,
    corpus_format: int,
    quality: pa.Schema = NO_COLUMNS,
) -> tuple[list[ManifestRow], list[tuple[File, Path]]]:
    """Write the tars and, last, the manifest of one shard, with the columns of *quality*, to the local *folder*.

    Returns the rows as the manifest has them, and each file with where it lies. A function of its arguments alone, so
    that a shard that is drawn again is the same files.
    """
    placed, built = list(rows), []
    for name, status in ((layout.tar(shard), Status.ok), (layout.quarantine_tar(shard), Status.quarantined)):
        local = folder / status.value
        empty = status is Status.ok and corpus_format > 1  # a gap in the numbers breaks a reader's brace pattern
        placed, digest = build_tar(local, placed, images, status, empty=empty)
        if digest is not None:
            built.append((_file(name, digest, status is Status.quarantined), local))
    local = folder / "manifest"
    local.write_bytes(manifest := write_manifest(placed, columns, schema_of(corpus_format), quality))
    built.append((_file(layout.manifest(shard), Digest.of(manifest), False), local))
    return placed, built


def _check_copyable(store: Store, name: str, size: int) -> None:
    """Refuse, before anything is decided, a file that could be committed and then never be published."""
    if store.copy_limit is not None and size > store.copy_limit:
        raise StoreError(
            f"{store.url}/{name}: would have {size:,} bytes, and this store copies {store.copy_limit:,} at most; "
            "lower output.samples_per_shard (a corpus that was begun needs another output.path then)"
        )


def create_once(store: Store, record: CommitRecord) -> CommitRecord:
    """Step 2: create the record if there is none; return the one that stands."""
    path = layout.commit(record.shard)
    return CommitRecord.loads(create_or_read(store, path, record.dumps()), f"{store.url}/{path}")


def publish(store: Store, evidence: Store, record: CommitRecord) -> None:
    """Steps 3 and 4. A file that the attempt no longer has was published by somebody who is ahead of us."""
    folder = layout.attempt(record.shard, record.attempt)
    for file in record.files:
        where = evidence if file.evidence else store
        try:
            where.copy(f"{folder}/{file.name}", file.name)
        except FileNotFoundError:
            if not file.evidence and not where.exists(file.name):  # evidence may have been purged since
                raise CorpusError(
                    f"{where.url}/{file.name}: committed by attempt {record.attempt}, but neither published nor there "
                    "to be published; delete the shard's commit record to have it generated again"
                ) from None
    _drop(store, evidence, folder)


def publish_all(store: Store, evidence: Store) -> list[int]:
    """Finish what crashed workers left undone: publish committed attempts, remove superseded ones and half-written
    files.

    Attempts of shards without a commit stay: they may belong to a live worker of a former driver. They are removed
    once their shard is committed. Returns the shards that were published here.
    """
    found: dict[tuple[int, str], None] = {}
    for where in (store, evidence):
        where.sweep()
        for entry in where.list(layout.ATTEMPTS):
            attempt = layout.attempt_of(entry.path)
            if attempt is not None:
                found[attempt] = None

    def mend(attempt: tuple[int, str]) -> int | None:
        shard, attempt_id = attempt
        record = read_commit(store, shard)
        if record is None:
            return None
        if record.attempt == attempt_id:
            publish(store, evidence, record)
            return shard
        _drop(store, evidence, layout.attempt(shard, attempt_id))
        return None

    mended = in_parallel(mend, sorted(found), title="publish")
    return [shard for shard in mended if shard is not None]


def read_commit(store: Store, shard: int) -> CommitRecord | None:
    """Return the commit record of *shard*, or None where it is not committed."""
    path = layout.commit(shard)
    try:
        return CommitRecord.loads(store.read(path), f"{store.url}/{path}")
    except FileNotFoundError:
        return None


def committed_shards(store: Store) -> list[int]:
    """Return the committed shards, in order, from the names of their records alone."""
    found = (layout.commit_of(entry.path) for entry in store.list(layout.COMMITS))
    return sorted(shard for shard in found if shard is not None)


def committed(store: Store) -> dict[int, CommitRecord]:
    """Return every commit record by shard, in order."""
    return {record.shard: record for record in read_commits(store, committed_shards(store))}


def committed_counts(
    store: Store, known: Mapping[int, Mapping[str, int]] | None = None
) -> dict[int, Mapping[str, int]]:
    """Return the samples per status of every committed shard; of those that *known* has no record is read.

    Shards with equal counts share one object, and no record is kept.
    """
    shards = committed_shards(store)
    counts = {shard: known[shard] for shard in shards if shard in known} if known else {}
    shared: dict[tuple[tuple[str, int], ...], Mapping[str, int]] = {}
    for record in read_commits(store, [shard for shard in shards if shard not in counts]):
        counts[record.shard] = shared.setdefault(tuple(record.counts.items()), record.counts)
    return counts


def read_commits(store: Store, shards: Sequence[int]) -> Iterator[CommitRecord]:
    """Yield the commit records of *shards*, which are committed, in their order."""

    def load(shard: int) -> CommitRecord:
        path = layout.commit(shard)
        return CommitRecord.loads(store.read(path), f"{store.url}/{path}")

    return in_parallel(load, shards, title="commits")


def _file(name: str, digest: Digest, evidence: bool) -> File:
    return File(name=name, size=digest.size, sha256=digest.sha256, md5=digest.md5, evidence=evidence)


def _drop(store: Store, evidence: Store, folder: str) -> None:
    evidence.delete_tree(folder)
    store.delete_tree(folder)
