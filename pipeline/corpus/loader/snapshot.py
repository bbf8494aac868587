"""What of a corpus is read: its run and the commit records that stand when it is opened, and a note of them."""

import base64
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.damage import repair_command, standing
from pipeline.corpus.run_record import RunRecord, require_run_record
from pipeline.corpus.stores import Refused, Store, hastily
from pipeline.errors import CorpusError, StoreError
from pipeline.files import replace_synced

log = logging.getLogger(__name__)


def open_snapshot(store: Store, partial: bool, home: Path | None) -> tuple[RunRecord, Sequence[CommitRecord]]:
    """Return the run and the records of its committed shards, in their order.

    They are noted in the folder *home*, where one is given, and taken from there while the store cannot be reached.
    A corpus that was complete has not grown since: then the store is waited for no longer than one that never answered.
    Raises ``CorpusError`` for a corpus that is damaged or, without *partial*, not complete.
    """
    note = home / "known" / f"{hashlib.sha256(store.url.encode()).hexdigest()[:32]}.json" if home else None
    known = _known(note) if note else None
    try:
        with hastily() if known and known.get("complete") else nullcontext():
            run = require_run_record(store)
            records = _records(store, run, partial)
    except Refused:
        raise
    except StoreError as error:
        if known is None:
            raise
        path = f"{store.url}/{layout.RUN}"
        run = RunRecord.loads(base64.b64decode(known["run"]), path)
        if len(known["records"]) < run.shards and not partial:
            seen = f"{len(known['records'])} of {run.shards} shards were committed"
            raise StoreError(f"{error}; when it was last seen {seen}: partial=True reads these") from error
        log.warning("%s; opened as it was when it was last seen", error)
        return run, [CommitRecord.loads(json.dumps(record).encode(), path) for record in known["records"]]
    if note is not None:
        _write(note, store, run, records)
    return run, records


def _known(note: Path) -> dict[str, Any] | None:
    """Return what the file *note* says; None where there is none, or it is damaged."""
    try:
        return dict(json.loads(note.read_bytes()))
    except (FileNotFoundError, ValueError):
        return None


def _records(store: Store, run: RunRecord, partial: bool) -> Sequence[CommitRecord]:
    whole, damaged = standing(store)
    if damaged and not partial:
        raise CorpusError(
            f"{store.url}: {damaged[0]}{f' ({len(damaged)} files are damaged)' if len(damaged) > 1 else ''}; "
            f"repair it: {repair_command(store.url)}, or read the rest with partial=True"
        )
    if len(whole) < run.shards and not partial:
        raise CorpusError(
            f"{store.url}: {len(whole)} of {run.shards} shards are committed; finish its run, or read these with "
            "partial=True, as a snapshot: what is committed later is not seen"
        )
    for record in whole.values():
        if record.identity != run.digest:
            raise CorpusError(
                f"{store.url}/{layout.commit(record.shard)}: is of another corpus (identity {record.identity[:12]}, "
                f"{layout.RUN} has {run.digest[:12]}); delete it and run again"
            )
    return list(whole.values())


def _write(note: Path, store: Store, run: RunRecord, records: Sequence[CommitRecord]) -> None:
    """What the note says of a record is what a reader asks of it."""
    kept = [asdict(record) | {"environment": {}, "timings": {}} for record in records]
    known = {
        "url": store.url,
        "complete": len(records) == run.shards,
        "run": base64.b64encode(run.dumps()).decode(),
        "records": kept,
    }
    data = json.dumps(known).encode()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        if not note.exists() or note.read_bytes() != data:
            replace_synced(note, data, note.with_name(f"{note.name}.{os.getpid()}"))
    except OSError as error:
        raise StoreError(f"{note.parent}: cannot be used as a cache ({error.strerror})") from error
