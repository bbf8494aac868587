"""Re-read a whole corpus and say what is wrong with it. Trusts nothing but the commit records."""

import contextlib
import hashlib
import io
import os
import shlex
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord, File, committed
from pipeline.corpus.compiled import faults, unnamed
from pipeline.corpus.damage import repair_command, was_purged, wrong_bytes
from pipeline.corpus.indexes import PLACED, dali_index, wids_index
from pipeline.corpus.manifest import ManifestRow, Status, lacking, read_manifest, read_rows
from pipeline.corpus.opening import Output
from pipeline.corpus.purge import read_note
from pipeline.corpus.rows import CAPTION, NEEDED, disagreeing, trainable
from pipeline.corpus.run_record import RunRecord, require_run_record
from pipeline.corpus.shard import evidence_members, image_extension, members
from pipeline.corpus.stores import Store
from pipeline.corpus.words import fault_of
from pipeline.errors import CorpusError
from pipeline.parallel import in_parallel

READERS = min(8, os.cpu_count() or 1)  # shards read and decoded at once; each holds its tar twice, 0.3 GB and more


@dataclass
class Inspection:
    """What is wrong with a corpus. ``problems``: a line for each thing; what follows says which kinds can be mended.

    ``damaged``: by shard, the files that are not as committed. ``tensors``: the recipe's files that are not as pinned.
    ``uncommitted``: planned shards without a commit. ``derived``: whether there is something that ``finish`` mends.
    ``others``: the problems that no command mends, such as files that no commit names.
    """

    problems: list[str] = field(default_factory=list)
    damaged: dict[int, tuple[File, ...]] = field(default_factory=dict)
    tensors: list[str] = field(default_factory=list)
    uncommitted: list[int] = field(default_factory=list)
    derived: bool = False
    others: list[str] = field(default_factory=list)

    def remedies(self, path: str) -> list[str]:
        """Return a line for each command that mends some of it."""
        lines = []
        if self.damaged or self.tensors:
            lines.append(f"to draw again what is damaged: {repair_command(path)}")
        elif self.derived:
            lines.append(f"to derive indexes and reports anew, and clear up: lacuna finish {shlex.quote(str(path))}")
        if self.uncommitted:
            lines.append(f"to draw the shards that are not committed: lacuna run CONFIG, or {repair_command(path)}")
        return lines


def verify(path: str, options: Mapping[str, str] | None = None) -> list[str]:
    """Return a line for each thing that is wrong with the corpus at *path*; an empty list says that it is sound.

    Evidence that was purged is no fault. Raises ``CorpusError`` where no corpus is.
    """
    return inspect(path, options).problems


def inspect(path: str, options: Mapping[str, str] | None = None) -> Inspection:
    """Re-read the corpus at *path* as ``verify`` does; return also what can be mended."""
    return inspect_output(Output.open(path, options))


def inspect_output(output: Output) -> Inspection:
    """See ``inspect``."""
    store, evidence = output.store, output.evidence
    run = require_run_record(store)
    records = committed(store)
    found = Inspection(uncommitted=[shard for shard in range(run.shards) if shard not in records])
    problems = found.problems
    problems += [f"shard {shard:06d}: planned, but not committed" for shard in found.uncommitted]
    found.others += [f"{layout.commit(s)}: no such shard was planned" for s in records if s >= run.shards]
    for record in records.values():
        if record.identity != run.digest:
            found.others.append(f"{layout.commit(record.shard)}: is of another identity ({record.identity[:16]})")
        if record.format != run.format:
            found.others.append(
                f"{layout.commit(record.shard)}: is of format {record.format}, the corpus of format {run.format}"
            )
    sound: list[CommitRecord] = []
    samples = 0
    note, any_left = read_note(evidence), next(evidence.list(layout.QUARANTINE), None) is not None

    def check(record: CommitRecord) -> tuple[list[str], tuple[File, ...], int]:
        return _Shard(store, evidence, record, was_purged(record, note, any_left), run.quality_schema).check()

    checked = in_parallel(check, list(records.values()), threads=READERS, title="verify")
    for record, (lines, damaged, rows) in zip(records.values(), checked, strict=True):
        if damaged:
            found.damaged[record.shard] = damaged
            problems += lines
        elif lines:
            found.others += lines
        else:
            sound.append(record)
        samples += rows
    if len(records) == run.shards and samples != run.samples and not found.damaged:
        found.others.append(f"manifests: hold {samples} samples, {run.samples} were planned")
    for name, line in _recipe(store, run.recipe):
        found.tensors.append(name)
        problems.append(line)
    if fault := fault_of(store, run.words):
        found.others.append(fault)
    found.others += faults(store)
    strays = list(_strays(store, evidence, records, run.format))
    if found.uncommitted:  # they may be of these
        problems += strays
    else:
        found.others += strays
    derived = list(_derived(store, records, sound, run)) if len(records) == run.shards else []
    derived += [
        f"{path}: code that no record names, of a worker that died or is still compiling; `lacuna finish` removes it"
        for path in unnamed(store)
    ]
    found.derived = bool(derived)
    problems += derived + found.others
    return found


class _Shard:
    """One committed shard: its files against the record, its tar against its manifest."""

    def __init__(self, store: Store, evidence: Store, record: CommitRecord, purged: bool, quality: pa.Schema):
        self.store, self.evidence, self.record, self.purged = store, evidence, record, purged
        self.quality = quality  # columns that its manifest has beside those of every corpus
        self.problems: list[str] = []
        self.damaged: list[File] = []

    def check(self) -> tuple[list[str], tuple[File, ...], int]:
        """Return the problems, the files that are not as committed, and how many samples the manifest has."""
        rows = self._check()
        return self.problems, tuple(self.damaged), rows

    def _check(self) -> int:
        shard = self.record.shard
        data = {file.name: self._read(file) for file in self.record.files}
        manifest = data.get(layout.manifest(shard))
        if manifest is None:
            if layout.manifest(shard) not in data:
                self.problems.append(f"{layout.commit(shard)}: lists no manifest")
            return 0
        try:
            rows = read_rows(manifest)
        except CorpusError as error:
            self.problems.append(f"{layout.manifest(shard)}: {error}")
            return 0
        if absent := lacking(manifest, self.quality):
            self.problems.append(f"{layout.manifest(shard)}: lacks {', '.join(absent)}, which {layout.RUN} says it has")
        counts = {status.value: sum(row.status is status for row in rows) for status in Status}
        if counts != self.record.counts:
            self.problems.append(f"{layout.manifest(shard)}: counts {counts} are not those of the commit")
        for name, status in ((layout.tar(shard), Status.ok), (layout.quarantine_tar(shard), Status.quarantined)):
            wanted = [row for row in rows if row.status is status]
            always = status is Status.ok and self.record.format > 1
            if (wanted or always) and name not in data:
                self.problems.append(f"{name}: {len(wanted)} rows are {status}, but the commit lists no such file")
            elif data.get(name) is not None:
                self._check_tar(name, data[name] or b"", wanted, status)
        self._check_keys([row.key for row in rows])
        return len(rows)

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
        data = None
        with contextlib.suppress(FileNotFoundError):
            data = where.read(file.name)
        if data is None and file.evidence and self.purged:
            return None
        if why := wrong_bytes(file, data):
            self.damaged.append(file)
            self.problems.append(f"{file.name}: {why}")
        return data

    def _check_tar(self, name: str, data: bytes, rows: list[ManifestRow], status: Status) -> None:
        from pipeline.corpus.encode import decode_image

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
                expected.update(member for member in stored if member.startswith(f"{row.key}."))
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


def _recipe(store: Store, recipe: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The name of each tensor file that is not as pinned, and a line on it."""
    for step in recipe.get("steps", []):
        if "file" in step:
            path = layout.recipe(step["file"])
            try:
                if hashlib.sha256(store.read(path)).hexdigest() != step["sha256"]:
                    yield step["file"], f"{path}: sha256 is not the one pinned in {layout.RUN}"
            except FileNotFoundError:
                yield step["file"], f"{path}: missing, though {layout.RUN} pins it"


def _strays(store: Store, evidence: Store, records: Mapping[int, CommitRecord], corpus_format: int) -> Iterator[str]:
    """Files at final names that no commit names, and attempts that were not removed."""
    named = {file.name for record in records.values() for file in record.files}
    indexes = (".idx", layout.SIZES) if corpus_format == 1 else ()  # there also those that other tools make
    for where, folders in ((store, (layout.TRAIN, layout.MANIFESTS)), (evidence, (layout.QUARANTINE,))):
        for folder in folders:
            for entry in where.list(folder):
                if entry.path not in named and not entry.path.endswith(indexes):
                    yield f"{entry.path}: no commit names it"
        for entry in where.list(layout.ATTEMPTS):
            attempt = layout.attempt_of(entry.path)
            if attempt is not None:
                record = records.get(attempt[0])
                why = "published or superseded; run again to clear it" if record else "of a shard that is not committed"
                yield f"{entry.path}: left over, {why}"


def _derived(
    store: Store, records: Mapping[int, CommitRecord], sound: Sequence[CommitRecord], run: RunRecord
) -> Iterator[str]:
    """What ``finish`` derives of a corpus that is complete, where it has been at work. Indexes are held against shards
    that are sound themselves."""
    corpus_format = run.format
    there = {name: store.exists(name) for name in layout.derived(corpus_format)}
    if not any(there.values()):
        return
    for name, is_there in there.items():
        if not is_there:
            yield f"{name}: missing; derive it anew with `lacuna finish`"
    wids = layout.wids(corpus_format)
    if there[wids] and store.read(wids) != wids_index(records.values(), corpus_format):
        yield f"{wids}: does not agree with the commits; derive it anew with `lacuna finish`"

    def check(record: CommitRecord) -> str | None:
        path = layout.dali(record.shard, corpus_format)
        try:
            index, manifest = store.read(path), store.read(layout.manifest(record.shard))
        except FileNotFoundError:
            return f"{path}: missing; derive it anew with `lacuna finish`"
        if index != dali_index(trainable(read_manifest(manifest, columns=("status", *PLACED))), store, record):
            return f"{path}: does not agree with its tar; derive it anew with `lacuna finish`"
        return None

    full = [record for record in sound if record.counts["ok"]]
    yield from (line for line in in_parallel(check, full, title="indexes") if line is not None)
    if len(sound) == len(records) and corpus_format > 1:
        for path in disagreeing(store, run.digest, sound, _kept(store, sound)):
            yield f"{path}: does not agree with the manifests; derive it anew with `lacuna finish`"


def _kept(store: Store, records: Sequence[CommitRecord]) -> Iterator[tuple[CommitRecord, pa.Table]]:
    """Yield the manifests, with the rows that may be trained on."""

    def load(record: CommitRecord) -> pa.Table:
        return trainable(read_manifest(store.read(layout.manifest(record.shard)), columns=(*NEEDED, CAPTION)))

    yield from zip(records, in_parallel(load, records, title="rows"), strict=True)
