"""What of a committed shard is no longer as its commit record says, and the command that mends it."""

import hashlib
import shlex
from datetime import datetime

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord, File, committed_shards, read_commits
from pipeline.corpus.purge import Note
from pipeline.corpus.stores import Store


def repair_command(path: str) -> str:
    """Return what a user types to have the corpus at *path* repaired."""
    return f"lacuna repair {shlex.quote(str(path))}"


def published(store: Store) -> dict[int, CommitRecord]:
    """Return, of the commit records, those whose files are at their final names: what a reader may rely on."""
    return standing(store)[0]


def standing(store: Store) -> tuple[dict[int, CommitRecord], list[str]]:
    """Return the commit records whose files are at their final names in their sizes, and a line for each file of the
    others that is not: what has been damaged since. From listings alone; ``verify`` reads the files.

    A shard is decided a moment before it is published, or longer, where its worker died in between and no run has gone
    on since (``publish_all``): such a one is in neither. Evidence is not looked at: it may have been purged.
    """
    shards = committed_shards(store)  # first, and files last: what is published meanwhile is not taken for damaged
    pending = {layout.attempt_of(entry.path) for entry in store.list(layout.ATTEMPTS)}
    sizes = {entry.path: entry.size for folder in (layout.MANIFESTS, layout.TRAIN) for entry in store.list(folder)}
    whole: dict[int, CommitRecord] = {}
    damaged: list[str] = []
    for record in read_commits(store, shards):
        files = [file for file in record.files if not file.evidence]
        lines = [f"{file.name}: {why}" for file in files if (why := wrong_size(file, sizes.get(file.name)))]
        if not lines:
            whole[record.shard] = record
        elif (record.shard, record.attempt) not in pending:
            damaged += lines
    return whole, damaged


def wrong_size(file: File, size: int | None) -> str:
    """Return why *file*, which has *size* bytes or is not there, is damaged; ``""`` where its size is right."""
    if size is None:
        return f"missing (committed, {file.size} bytes)"
    return "" if size == file.size else f"is {size} bytes, was committed with {file.size}"


def wrong_bytes(file: File, data: bytes | None) -> str:
    """Return why *file*, whose bytes are *data*, is damaged; ``""`` where it is as committed."""
    if why := wrong_size(file, None if data is None else len(data)):
        return why
    return "" if hashlib.sha256(data or b"").hexdigest() == file.sha256 else "sha256 is not the one committed"


def sound_manifest(store: Store, record: CommitRecord) -> tuple[bytes, str]:
    """Return the bytes of a shard's manifest and ``""``, or a line on why it is damaged in their stead."""
    name = layout.manifest(record.shard)
    file = record.file(name)
    if file is None:
        return b"", f"{layout.commit(record.shard)}: lists no manifest"
    try:
        data = store.read(name)
    except FileNotFoundError:
        return b"", f"{name}: {wrong_size(file, None)}"
    why = wrong_bytes(file, data)
    return (b"", f"{name}: {why}") if why else (data, "")


def was_purged(record: CommitRecord, note: Note | None, any_left: bool) -> bool:
    """Tell whether evidence of *record* that is missing was purged, by the evidence's *note*.

    Without one, of an older corpus, a purge is what took all; *any_left* says whether any quarantine tar is there.
    """
    if note is None:
        return not any_left
    times = [datetime.fromisoformat(moment).timestamp() for moment in (note.purge_begun, note.purged) if moment]
    return bool(times) and record.committed_at <= max(times) + 1  # the note counts whole seconds
