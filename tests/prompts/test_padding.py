"""What batches and padding a plan comes to."""

import json

import pytest

from pipeline.config import load_config
from pipeline.prompts import Plan, batches, open_source
from pipeline.prompts.padding import LOOKED_AT, SHARDS, Batches, batching
from pipeline.prompts.report import plan_report

CONFIG = """\
model: {path: diorama, dtype: float32}
prompts: {source: prompts.jsonl}
output: {path: out/x, samples_per_shard: 64}
generation: {size: [64, 64], batch_size: 16, compile: none}
"""
SIZES = ("64x64", "64x128", "128x64", "128x128")


@pytest.fixture
def make(tmp_path):
    """Return config and plan of rows that ask for *sizes* by turns."""

    def build(rows: int, *overrides: str, sizes=()):
        (tmp_path / "c.yaml").write_text(CONFIG)
        asked = [{"prompt": f"row {i}"} | ({"size": sizes[i % len(sizes)]} if sizes else {}) for i in range(rows)]
        (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, asked)))
        config = load_config(tmp_path / "c.yaml", overrides)
        return config, Plan.build(config, open_source(config.prompts))

    return build


def test_four_sizes_by_turns_take_the_batches_of_four_sizes_apart(make):
    _, plan = make(128, sizes=SIZES)
    found = batching(plan, 16)
    assert found.sizes == {(w, h): Batches(32, 2) for w in (64, 128) for h in (64, 128)}
    assert (found.pictures, found.batches, found.padded, found.share) == (128, 8, 0, 0.0)
    assert batching(plan, 12).sizes == {(w, h): Batches(32, 4) for w in (64, 128) for h in (64, 128)}
    assert batching(plan, 12).padded == 8 * 2 * 12 - 128


def test_a_place_is_reckoned_by_its_pixels(make):
    """Five pictures of 64x64 and as many of four times the pixels, in batches of four: two batches of each."""
    _, plan = make(10, sizes=("64x64", "128x128"))
    found = batching(plan, 4)
    assert found.padded == 6
    assert found.share == pytest.approx(1 - 5 / 8)
    assert found.mean_pixels == 64 * 64 * 2.5
    assert found.per_picture((64, 64)) == pytest.approx((2 + 8) / 10)
    assert found.per_picture((128, 128)) == pytest.approx((0.5 + 2) / 10)


def test_what_is_reckoned_without_reading_is_what_reading_finds(make):
    for rows, batch_size in ((1, 16), (63, 16), (64, 16), (65, 16), (200, 64), (200, 7), (200, 100)):
        _, plan = make(rows)
        unread = batching(plan, batch_size)
        assert unread == batching(plan, batch_size, lambda sample: 1)
        drawn = [batch for i in range(plan.shards) for batch in batches(plan.shard(i).samples, batch_size)]
        assert (unread.batches, unread.pictures) == (len(drawn), rows)


def test_texts_of_several_lengths_have_batches_of_their_own(make):
    _, plan = make(64)
    found = batching(plan, 16, lambda sample: 1 + (sample.index % 4 == 0))
    assert found.sizes == {(64, 64): Batches(64, 3 + 1)}
    assert batching(plan, 16, lambda sample: 1 + (sample.index % 8 == 0)).padded == 16


def test_of_a_large_plan_some_shards_are_looked_at_spread_over_all_of_it(make, monkeypatch):
    read = []
    shard = Plan.shard
    monkeypatch.setattr(Plan, "shard", lambda self, index: read.append(index) or shard(self, index))
    _, plan = make(4_001, "output.samples_per_shard=40", sizes=SIZES[:2])
    found = batching(plan, 16)
    assert (found.looked, found.shards) == (len(read), 101) == (SHARDS, 101)
    assert (read[0], read[-1]) == (0, 99), "the last is not full, and would count for more than it is"
    assert found.sizes == {(64, 64): Batches(20 * SHARDS, 2 * SHARDS), (64, 128): Batches(20 * SHARDS, 2 * SHARDS)}
    read.clear()
    _, plan = make(LOOKED_AT + 5_000, f"output.samples_per_shard={LOOKED_AT}", sizes=SIZES[:1])
    assert (batching(plan, 16).looked, read) == (1, [0])


def test_the_plan_says_it(make):
    def line(*arguments, **options):
        config, plan = make(*arguments, **options)
        found = [line for line in plan_report(config, plan).lines() if line.startswith("batches")]
        return found[0] if found else None

    assert line(128, sizes=SIZES) == (
        "batches   8 of 16 pictures in 4 sizes: 0 of 128 places are padding, 0 % of the drawing time"
    )
    assert line(65, "generation.batch_size=32") == (
        "batches   3 of 32 pictures: 31 of 96 places are padding, 32.3 % of the drawing time; larger shards "
        "(output.samples_per_shard) or smaller batches (generation.batch_size) have less"
    )
    assert line(20, "generation.batch_size=32") == (
        "batches   1 of 32 pictures: 12 of 32 places are padding, 37.5 % of the drawing time; smaller batches "
        "(generation.batch_size) have less"
    )
    assert line(2_000, "output.samples_per_shard=40", sizes=SIZES[:2]) == (
        "batches   80 of 16 pictures in 2 sizes: 480 of 1,280 places are padding, 37.5 % of the drawing time (in 20 of "
        "50 shards, which were looked at); larger shards (output.samples_per_shard) or smaller batches "
        "(generation.batch_size) have less"
    )
    # What only a model or a device tells.
    assert line(64, "generation.batch_size=auto") is None
    assert line(64, "generation.long_prompts=chunks") is None
