"""Corpora of any numbers of samples, committed by the real protocol, for tests of those who read them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline.config.schema import ImageFormat
from pipeline.corpus import ManifestRow, RunRecord, Status, commit_shard, create_run_record, layout, open_store
from pipeline.corpus.encode import encode_image

IDENTITY = "e" * 64
COLUMNS = pa.schema([pa.field("source", pa.string()), pa.field("number", pa.int64())])
SIZES = ((16, 16),)


def make_corpus(
    path: str,
    kept: Sequence[int],
    options: Mapping[str, str] | None = None,
    *,
    dropped: int = 3,
    sizes: Sequence[tuple[int, int]] = SIZES,
    image_format: ImageFormat = ImageFormat.jpg,
    first: int = 0,
    corpus_format: int = layout.FORMAT,
) -> list[str]:
    """Commit a shard with so many pictures to train on for each of *kept*, and *dropped* others; return their keys.

    The picture of a sample shows its ``number``, which counts those to train on from *first* (see ``number_of``);
    every fifth ``source`` is null; *sizes* (height, width) take turns.
    """
    store, evidence = open_store(path, options), open_store(f"{path}.evidence", options)
    create_run_record(store, run_record(len(kept), sum(kept) + dropped * len(kept), corpus_format, image_format))
    number, keys = first, []
    for shard, count in enumerate(kept):
        rows, images, passing = [], {}, []
        for i in range(count + dropped):
            ok = not (i % 2 and i // 2 < dropped) if count else False
            ok = ok and sum(row.status is Status.ok for row in rows) < count
            key, (height, width) = f"{shard:06d}{i:05d}", sizes[number % len(sizes)]
            rows.append(
                ManifestRow(
                    key=key, shard=shard, prompt=f"a cat, {number}", caption=f"number {number}", seed=i, width=width,
                    height=height, status=Status.ok if ok else Status.dropped, reason="" if ok else "cat",
                )
            )  # fmt: skip
            passing.append({"source": None if number % 5 == 0 else f"s{number % 3}", "number": number if ok else None})
            if ok:
                images[key] = encode_image(picture(number, height, width), image_format, 95)
                keys.append(key)
                number += 1
        commit_shard(
            store, evidence, shard=shard, attempt=f"a{shard}", rows=rows, images=images,
            columns=pa.Table.from_pylist(passing, schema=COLUMNS), identity=IDENTITY, environment={}, timings={},
            corpus_format=corpus_format,
        )  # fmt: skip
    return keys


def run_record(shards: int, samples: int, corpus_format: int, image_format: ImageFormat) -> RunRecord:
    config = {
        "model": {"path": "tiny", "dtype": "float32"},
        "generation": {"steps": 2, "guidance": 5.0},
        "erasure": {"concepts": []},
        "output": {"path": "out/test", "image_format": image_format.value},
        "audit": {"detectors": [], "policy": "drop", "captions": "drop"},
    }
    return RunRecord(
        digest=IDENTITY, identity={"seed": 0}, config=config, batch_size=4, recipe={},
        model_revision="r", environment={}, samples=samples, shards=shards, samples_per_shard=1024,
        column_schema=COLUMNS, format=corpus_format,
    )  # fmt: skip


def picture(number: int, height: int = 16, width: int = 16) -> np.ndarray:
    """A picture (H, W, 3) that says *number*, below 4096, in its colour; it survives JPEG."""
    levels = np.array([number >> 8 & 15, number >> 4 & 15, number & 15])
    return np.broadcast_to((levels * 16 + 8).astype(np.uint8), (height, width, 3)).copy()


def number_of(image) -> int:
    """Return what ``picture`` says."""
    levels = np.asarray(image).reshape(-1, 3).astype(float).mean(0).astype(int) // 16
    return int(levels[0] << 8 | levels[1] << 4 | levels[2])
