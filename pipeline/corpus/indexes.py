"""Indexes for loaders, derived from commit records and manifests: wids, DALI, and in format 1 sizes for open_clip."""

import json
from collections.abc import Iterable, Sequence

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.manifest import ManifestRow, Status
from pipeline.corpus.shard import image_extension, layout_of
from pipeline.corpus.stores import Store


def wids_index(records: Iterable[CommitRecord], corpus_format: int) -> bytes:
    """Return the index of wids: shards that hold something, with md5, number of samples and size.

    URLs are relative to the folder of the index.
    """
    base = "../" * layout.wids(corpus_format).count("/")
    shards = [
        {"url": f"{base}{file.name}", "md5sum": file.md5, "nsamples": record.counts["ok"], "filesize": file.size}
        for record in records
        if record.counts["ok"] and (file := record.file(layout.tar(record.shard))) is not None
    ]
    return json.dumps({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}, indent=1).encode()


def sizes_index(records: Iterable[CommitRecord]) -> bytes:
    """Return ``sizes.json``: samples per tar, by its base name."""
    sizes = {
        layout.tar(record.shard).rpartition("/")[2]: record.counts["ok"]
        for record in records
        if record.file(layout.tar(record.shard)) is not None
    }
    return json.dumps(sizes, indent=1).encode()


def dali_index(rows: Sequence[ManifestRow], store: Store, record: CommitRecord) -> bytes:
    """Return NVIDIA DALI's index of one tar: ``v1.2 N``, then extension, offset, size and name of each member.

    Offsets come from the manifest; of the tar only the first bytes of its first picture are read, for its format.
    """
    first = next(row for row in rows if row.status is Status.ok)
    assert first.offset is not None
    extension = image_extension(store.read_range(layout.tar(record.shard), first.offset, 16))
    lines = []
    for _, placed in layout_of(rows, extension):
        parts = [f"{m.name.rpartition('.')[2]} {m.offset} {m.size} {m.name}" for m in placed]
        lines.append(" ".join(parts))
    return "\n".join([f"v1.2 {len(lines)}", *lines, ""]).encode()
