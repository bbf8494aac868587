"""A corpus streams into a training loop, and the loss goes down; no corpus gives one line."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.schema import ImageFormat
from pipeline.corpus import ManifestRow, RunRecord, Status, commit_shard, create_run_record, layout, open_store
from pipeline.corpus.encode import encode_image

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "train_downstream.py"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
SHARDS, SAMPLES = 2, 32


@pytest.fixture
def corpus(tmp_path) -> str:
    """Two shards of noisy pictures of one colour each, of two sizes, with captions that name it."""
    path, none = str(tmp_path / "corpus"), pa.schema([])
    store, evidence = open_store(path), open_store(f"{path}.evidence")
    record = RunRecord(
        digest="d" * 64, identity={}, config={}, batch_size=4, recipe={}, model_revision="r", environment={},
        samples=SHARDS * SAMPLES, shards=SHARDS, samples_per_shard=SAMPLES, column_schema=none,
    )  # fmt: skip
    create_run_record(store, record)
    draw = np.random.default_rng(0)
    for shard in range(SHARDS):
        rows, images = [], {}
        for i in range(SAMPLES):
            name, side, key = list(COLOURS)[i % 4], 64 if i % 3 else 48, f"{shard:06d}{i:05d}"
            rows.append(
                ManifestRow(
                    key=key, shard=shard, prompt=f"a {name} wall", caption=f"a {name} wall", seed=i, width=side,
                    height=side, status=Status.ok,
                )
            )  # fmt: skip
            picture = np.clip(draw.normal(COLOURS[name], 20, (side, side, 3)), 0, 255).astype(np.uint8)
            images[key] = encode_image(picture, ImageFormat.jpg, 95)
        assert commit_shard(
            store, evidence, shard=shard, attempt="a", rows=rows, images=images, columns=None, identity="d" * 64,
            corpus_format=layout.FORMAT,
            environment={}, timings={},
        ).won  # fmt: skip
    return path


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


@pytest.mark.slow
def test_the_loss_goes_down_with_a_reading_process_of_its_own(corpus):
    done = run(corpus, "--epochs", "4", "--batch", "16", "--workers", "1")
    assert done.returncode == 0, done.stderr
    first, last = map(float, re.search(r"loss (\S+) -> (\S+),", done.stdout).groups())
    assert last < 0.9 * first
    assert f"4 epochs of {SHARDS * SAMPLES} pictures" in done.stdout
    assert "epoch 4/4, loss" in done.stderr  # the bar


def test_no_corpus_is_one_line(tmp_path):
    done = run(str(tmp_path), "--workers", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("train_downstream: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_option_of_the_store_without_a_value_is_one_line(tmp_path):
    done = run(str(tmp_path), "--storage", "endpoint")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "train_downstream.py: error: --storage endpoint: expected KEY=VALUE"


def test_no_epochs_are_one_line(tmp_path):
    done = run(str(tmp_path), "--epochs", "0")
    assert (done.returncode, done.stderr) == (1, "train_downstream: epochs is 0; expected a whole number, 1 or more\n")
