"""Indexes for loaders, derived from commit records and manifests: wids, DALI, and in format 1 sizes for open_clip."""

import json
from collections.abc import Iterable

import pyarrow as pa

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.shard import Placed, image_extension, layout_of
from pipeline.corpus.stores import Store

PLACED = tuple(Placed.__annotations__)  # the columns of a manifest that DALI's index is made of


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


def dali_index(kept: pa.Table, store: Store, record: CommitRecord) -> bytes:
    """Return NVIDIA DALI's index of one tar: ``v1.2 N``, then extension, offset, size and name of each member.

    Offsets come from the manifest's rows that may be trained on, *kept*, of which ``PLACED`` are read; of the tar only
    the first bytes of its first picture, for its format.
    """
    rows = [Placed(*row) for row in zip(*(kept[name].to_pylist() for name in PLACED), strict=True)]
    extension = image_extension(store.read_range(layout.tar(record.shard), rows[0].offset, 16))
    lines = []
    for row in rows:
        parts = [f"{m.name.rpartition('.')[2]} {m.offset} {m.size} {m.name}" for m in layout_of(row, extension)]
        lines.append(" ".join(parts))
    return "\n".join([f"v1.2 {len(lines)}", *lines, ""]).encode()
