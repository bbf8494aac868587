"""Re-read a whole corpus and say what is wrong with it. Trusts nothing but the commit records."""

import hashlib
import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord, File, committed
from pipeline.corpus.indexes import dali_index, wids_index
from pipeline.corpus.manifest import Row, Status, read_rows
from pipeline.corpus.run_record import require_run_record
from pipeline.corpus.shard import evidence_members, image_extension, members
from pipeline.corpus.stores import Store, open_store
from pipeline.errors import CorpusError
from pipeline.parallel import in_parallel

READERS = min(8, os.cpu_count() or 1)  # shards read and decoded at once; each holds its tar twice, 0.3 GB and more


def verify(path: str, options: Mapping[str, str] | None = None) -> list[str]:
    """Return a line for each thing that is wrong with the corpus at *path*; an empty list says that it is sound.

    Evidence that was purged is no fault. Raises ``CorpusError`` where no corpus is.
    """
    store, evidence = open_store(path, options), open_store(layout.evidence_url(path), options)
    run = require_run_record(store)
    records = committed(store)
    problems = [f"shard {s:06d}: planned, but not committed" for s in range(run.shards) if s not in records]
    problems += [f"{layout.commit(s)}: no such shard was planned" for s in records if s >= run.shards]
    for record in records.values():
        if record.identity != run.digest:
            problems.append(f"{layout.commit(record.shard)}: is of another identity ({record.identity[:16]})")
    sound: list[CommitRecord] = []
    samples = 0
    checked = in_parallel(
        lambda record: _Shard(store, evidence, record).check(), list(records.values()), threads=READERS, title="verify"
    )
    for record, (found, rows) in zip(records.values(), checked, strict=True):
        problems += found
        if not found:
            sound.append(record)
        samples += rows
    if len(records) == run.shards and samples != run.samples:
        problems.append(f"manifests: hold {samples} samples, {run.samples} were planned")
    problems += _recipe(store, run.recipe)
    problems += _strays(store, evidence, records)
    problems += _indexes(store, records, sound, complete=len(records) == run.shards)
    return problems


class _Shard:
    """One committed shard: its files against the record, its tar against its manifest."""

    def __init__(self, store: Store, evidence: Store, record: CommitRecord):
        self.store, self.evidence, self.record = store, evidence, record
        self.problems: list[str] = []

    def check(self) -> tuple[list[str], int]:
        """Return the problems and how many samples the manifest has."""
        shard = self.record.shard
        data = {file.name: self._read(file) for file in self.record.files}
        manifest = data.get(layout.manifest(shard))
        if manifest is None:
            if layout.manifest(shard) not in data:
                self.problems.append(f"{layout.commit(shard)}: lists no manifest")
            return self.problems, 0
        try:
            rows = read_rows(manifest)
        except CorpusError as error:
            self.problems.append(f"{layout.manifest(shard)}: {error}")
            return self.problems, 0
        counts = {status.value: sum(row.status is status for row in rows) for status in Status}
        if counts != self.record.counts:
            self.problems.append(f"{layout.manifest(shard)}: counts {counts} are not those of the commit")
        for name, status in ((layout.tar(shard), Status.ok), (layout.quarantine_tar(shard), Status.quarantined)):
            wanted = [row for row in rows if row.status is status]
            if wanted and name not in data:
                self.problems.append(f"{name}: {len(wanted)} rows are {status}, but the commit lists no such file")
            elif data.get(name) is not None:
                self._check_tar(name, data[name] or b"", wanted, status)
        self._check_keys([row.key for row in rows])
        return self.problems, len(rows)

    def _check_keys(self, keys: list[str]) -> None:
        """A key is its shard's name and five digits: unique in its own shard, it is unique in all."""
        name = layout.manifest(self.record.shard)
        for key, times in Counter(keys).items():
            if times > 1:
                self.problems.append(f"{name}: key {key} is there {times} times")
            if key[:-5] != layout.shard_name(self.record.shard):
                self.problems.append(f"{name}: key {key} is one of another shard")

    def _read(self, file: File) -> bytes | None:
        where = self.evidence if file.evidence else self.store
        try:
            data = where.read(file.name)
        except FileNotFoundError:
            if not file.evidence:
                self.problems.append(f"{file.name}: missing (committed, {file.size} bytes)")
            return None
        if len(data) != file.size:
            self.problems.append(f"{file.name}: is {len(data)} bytes, was committed with {file.size}")
        elif hashlib.sha256(data).hexdigest() != file.sha256:
            self.problems.append(f"{file.name}: sha256 is not the one committed")
        return data

    def _check_tar(self, name: str, data: bytes, rows: list[Row], status: Status) -> None:
        from pipeline.generation.encode import decode_image

        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                stored = {m.name: data[m.offset_data : m.offset_data + m.size] for m in tar}
        except tarfile.TarError as error:
            self.problems.append(f"{name}: not a readable tar ({_line(error)})")
            return
        described = members if status is Status.ok else evidence_members
        expected: set[str] = set()
        for row in rows:
            image = data[row.offset or 0 : (row.offset or 0) + (row.length or 0)]
            if hashlib.sha256(image).hexdigest() != row.sha256:
                self.problems.append(f"{name}: {row.key}: the picture is not the one of the manifest")
                continue
            try:
                extension = image_extension(image)
                shape = decode_image(image).shape
            except Exception as error:  # whatever a decoder raises on damaged bytes is what we are looking for
                self.problems.append(f"{name}: {row.key}: the picture does not decode ({_line(error)})")
                expected.update(member for member in stored if member.startswith(f"{row.key}."))
                continue
            for member, wanted in described(row, extension, image):
                expected.add(member)
                if stored.get(member) != wanted:
                    what = "is missing" if member not in stored else "differs from the manifest"
                    self.problems.append(f"{name}: {member} {what}")
            if shape != (row.height, row.width, 3):
                self.problems.append(
                    f"{name}: {row.key}: the picture is {shape[1]}x{shape[0]}, not {row.width}x{row.height}"
                )
        for member in sorted(stored.keys() - expected):
            self.problems.append(f"{name}: {member} belongs to no row of the manifest")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())  # tarfile lists, a line each, what every compression says of the bytes


def _recipe(store: Store, recipe: dict) -> Iterator[str]:
    for step in recipe.get("steps", []):
        if "file" in step:
            path = layout.recipe(step["file"])
            try:
                if hashlib.sha256(store.read(path)).hexdigest() != step["sha256"]:
                    yield f"{path}: sha256 is not the one pinned in {layout.RUN}"
            except FileNotFoundError:
                yield f"{path}: missing, though {layout.RUN} pins it"


def _strays(store: Store, evidence: Store, records: Mapping[int, CommitRecord]) -> Iterator[str]:
    """Files at final names that no commit names, and attempts that were not removed."""
    named = {file.name for record in records.values() for file in record.files}
    for where, folders in ((store, (layout.TRAIN, layout.MANIFESTS)), (evidence, (layout.QUARANTINE,))):
        for folder in folders:
            for entry in where.list(folder):
                if entry.path not in named and not entry.path.endswith((".idx", layout.SIZES)):
                    yield f"{entry.path}: no commit names it"
        for entry in where.list(layout.ATTEMPTS):
            attempt = layout.attempt_of(entry.path)
            if attempt is not None:
                record = records.get(attempt[0])
                why = "published or superseded; run again to clear it" if record else "of a shard that is not committed"
                yield f"{entry.path}: left over, {why}"


def _indexes(
    store: Store, records: Mapping[int, CommitRecord], sound: Sequence[CommitRecord], complete: bool
) -> Iterator[str]:
    """Indexes are held against shards that are sound themselves."""
    if not complete or not store.exists(layout.WIDS):
        return
    if store.read(layout.WIDS) != wids_index(records.values()):
        yield f"{layout.WIDS}: does not agree with the commits; derive it anew with `lacuna finish`"

    def check(record: CommitRecord) -> str | None:
        path = layout.index(record.shard)
        try:
            index, manifest = store.read(path), store.read(layout.manifest(record.shard))
        except FileNotFoundError:
            return f"{path}: missing; derive it anew with `lacuna finish`"
        if index != dali_index(read_rows(manifest), store, record):
            return f"{path}: does not agree with its tar; derive it anew with `lacuna finish`"
        return None

    full = [record for record in sound if record.file(layout.tar(record.shard)) is not None]
    yield from (line for line in in_parallel(check, full, title="indexes") if line is not None)
