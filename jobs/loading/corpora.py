"""Corpora to be read: of pictures as large as photographs, and of very many rows."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.config.schema import ImageFormat
from pipeline.corpus import ManifestRow, RunRecord, Status, commit_shard, create_run_record, layout, open_store
from pipeline.corpus.encode import encode_image


def picture(number: int, side: int) -> np.ndarray:
    """A picture (side, side, 3) whose JPEG is as large as a photograph's: soft colours under a fine grain."""
    draw = np.random.default_rng(number)
    soft = Image.fromarray(draw.integers(0, 256, (side // 32, side // 32, 3), np.uint8))
    grain = draw.normal(0, 4, (side, side, 1))
    return (np.asarray(soft.resize((side, side), Image.Resampling.BICUBIC)) + grain).clip(0, 255).astype(np.uint8)


def make(path: Path, side: int, samples: int, shards: int, kept: int | None = None) -> str:
    """Commit *samples* pictures in so many shards. Of *kept* pictures each is there several times."""
    if (path / layout.CARD).exists():
        return str(path)
    shutil.rmtree(path, ignore_errors=True)
    store, evidence = open_store(str(path)), open_store(f"{path}.evidence")
    create_run_record(store, run_record(shards, samples))
    encoded = [encode_image(picture(n, side), ImageFormat.jpg, 90) for n in range(kept or samples)]
    numbers = np.array_split(np.arange(samples), shards)
    for shard, own in enumerate(numbers):
        keys = [f"{shard:06d}{i:05d}" for i in range(len(own))]
        rows = [
            ManifestRow(
                key=key, shard=shard, prompt=f"a picture of the number {n}", caption=f"a picture of the number {n}",
                seed=int(n), width=side, height=side, status=Status.ok,
            )
            for key, n in zip(keys, own, strict=True)
        ]  # fmt: skip
        images = {key: encoded[n % len(encoded)] for key, n in zip(keys, own, strict=True)}
        commit_shard(
            store, evidence, shard=shard, attempt=f"a{shard}", rows=rows, images=images, columns=None,
            identity="d" * 64, environment={}, timings={}, corpus_format=layout.FORMAT,
        )  # fmt: skip
    store.write(layout.CARD, b"made for a benchmark\n")  # last: it is whole
    return str(path)


def run_record(shards: int, samples: int) -> RunRecord:
    config = {
        "model": {"path": "none", "dtype": "float32"}, "generation": {"steps": 1, "guidance": 1.0},
        "erasure": {"concepts": []}, "output": {"path": "none", "image_format": "jpg"},
        "audit": {"detectors": [], "policy": "keep", "captions": "keep"},
    }  # fmt: skip
    return RunRecord(
        digest="d" * 64, identity={}, config=config, batch_size=1, recipe={}, model_revision="", environment={},
        samples=samples, shards=shards, samples_per_shard=-(-samples // shards), column_schema=pa.schema([]),
    )  # fmt: skip


def repeated(path: Path, shards: int) -> str:
    """A corpus of so many equal shards of 1,024 small pictures: links to the files of one."""
    if (path / layout.CARD).exists():
        return str(path)
    one = Path(make(path.parent / "one", 64, 1024, 1))
    for folder in (layout.TRAIN, layout.MANIFESTS, layout.COMMITS):
        (path / folder).mkdir(parents=True, exist_ok=True)
    commit = (one / layout.commit(0)).read_text()
    for shard in range(shards):
        for name in (layout.tar, layout.manifest):
            os.link(one / name(0), path / name(shard))
        (path / layout.commit(shard)).write_text(
            commit.replace("/000000.", f"/{shard:06d}.").replace('"shard": 0,', f'"shard": {shard},')
        )
    create_run_record(open_store(str(path)), run_record(shards, shards * 1024))
    (path / layout.CARD).write_text("made for a benchmark\n")
    return str(path)
