"""Parts for tests of the corpus: rows and pictures of a shard, and stores on disk and on a real S3 server."""

import uuid
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.schema import ImageFormat
from pipeline.corpus import (
    Attempt,
    ManifestRow,
    RunRecord,
    Status,
    commit_shard,
    create_run_record,
    layout,
    open_store,
    remote,
    stores,
)
from pipeline.corpus.encode import encode_image
from tests.faulty import Faulty, serving

COLUMNS = pa.schema([pa.field("source", pa.string())])
SAMPLES = 6


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Indexes that reading makes lie in the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "lacuna"


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    """(path, options) of an empty corpus, on disk and on S3."""
    if request.param == "local":
        return str(tmp_path / "corpus"), {}
    return f"s3://corpora/{uuid.uuid4().hex}", request.getfixturevalue("s3")


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)


def shard_rows(shard: int, kept: bool = True) -> tuple[list[ManifestRow], dict[str, bytes]]:
    """Six samples: four kept, or quarantined too, one quarantined, one failed; and their pictures."""
    rows, images = [], {}
    for i in range(SAMPLES):
        status = {4: Status.quarantined, 5: Status.failed}.get(i, Status.ok if kept else Status.quarantined)
        reason = {4: "cat", 5: "nan"}.get(i, "")
        key, scores = f"{shard:06d}{i:05d}", {} if i == 5 else {"cat": 0.9 if i == 4 else 0.1}
        rows.append(
            ManifestRow(
                key=key, shard=shard, prompt=f"a cat number {i}", caption=f"number {i}", seed=i, width=16, height=16,
                status=status, reason=reason, scores=scores, gates={"cease": 0.5},
                attempts=(Attempt(seed=i, status=status, reason=reason, scores=scores),),
            )
        )  # fmt: skip
        if i != 5:
            images[key] = encode_image(picture(shard * 100 + i), ImageFormat.png, 0)
    return rows, images


CEASE = {"label": "cease", "method": "cease", "concepts": ["cat"], "options": {}}


def passing(rows: int) -> pa.Table:
    """The columns that pass to the manifest of so many rows."""
    return pa.table({"source": [f"row {i}" for i in range(rows)]}, schema=COLUMNS)


DIORAMA = {"name": "diorama", "role": "judge", "about": {}, "sha256": "sha256:d", "thresholds": {"cat": 0.5}}


def run_record(shards: int) -> RunRecord:
    concept = {"name": "cat", "aliases": ["kitten"], "anchor": "dog", "preserve": ["tiger"]}
    return RunRecord(
        digest="d" * 64, identity={"seed": 0},
        config={
            "model": {"path": "tiny", "dtype": "float32"}, "generation": {"steps": 2, "guidance": 5.0},
            "erasure": {"concepts": [concept]}, "output": {"path": "out/test", "image_format": "png"},
            "audit": {"detectors": [{"detector": "diorama"}], "policy": "quarantine", "captions": "drop"},
        },
        detectors=[DIORAMA],
        batch_size=4, recipe={"version": 1, "steps": [CEASE]}, model_revision="r", environment={"device": "cpu"},
        samples=shards * SAMPLES, shards=shards, samples_per_shard=SAMPLES, column_schema=COLUMNS,
    )  # fmt: skip


def commit(store, evidence, shard: int, attempt: str, kept: bool = True):
    rows, images = shard_rows(shard, kept)
    return commit_shard(
        store, evidence, shard=shard, attempt=attempt, rows=rows, images=images, columns=passing(len(rows)),
        identity="d" * 64, corpus_format=layout.FORMAT, environment={"device": "cpu"},
        timings={"seconds": 1.0, "device_seconds": 0.9, "images": SAMPLES},
    )  # fmt: skip


def make_corpus(path, options) -> None:
    store, evidence = open_store(path, options), open_store(f"{path}.evidence", options)
    create_run_record(store, run_record(3))
    for shard in range(3):
        assert commit(store, evidence, shard, f"a{shard}").won


@pytest.fixture
def corpus(place):
    """(path, options) of a sound corpus of three shards."""
    make_corpus(*place)
    return place


@pytest.fixture
def sealed(tmp_path):
    """(path, store) of the same on disk, unfinished, to be rewritten together with its commits."""
    path = str(tmp_path / "corpus")
    make_corpus(path, {})
    return path, open_store(path)


@pytest.fixture
def faulty(s3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A server with the bucket ``corpora``; clients wait milliseconds where others wait seconds."""
    wait = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 3}
    monkeypatch.setattr(remote, "BACKOFF", wait)
    monkeypatch.setattr(stores, "CREATE_PAUSES", (0.001,) * 15)
    with serving() as server:
        server.options = s3 | {"endpoint": server.endpoint}
        yield server
