"""The plan: every sample once, under a key of its own, the same whoever asks and in whatever order."""

import pickle
import random
import re
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import load_config
from pipeline.config.schema import BadRows
from pipeline.errors import ConfigError
from pipeline.prompts import Plan, batches, further_seed, open_source, tables
from pipeline.prompts.order import BLOCK, SPAN, Order
from pipeline.prompts.seeds import permuted, sample_seed

CONFIG = """\
model: {path: diorama, dtype: float32}
prompts: {source: prompts.jsonl}
output: {path: out/x, samples_per_shard: 100}
generation: {negative_prompt: dull, size: [64, 64], compile: none}
"""


@pytest.fixture
def make(tmp_path):
    """Return a plan of *rows* numbered prompts under some overrides."""

    def build(rows: int, *overrides: str, row=lambda i: f'{{"prompt": "row {i}", "id": {i}}}') -> Plan:
        (tmp_path / "c.yaml").write_text(CONFIG)
        (tmp_path / "prompts.jsonl").write_text("\n".join(map(row, range(rows))))
        config = load_config(tmp_path / "c.yaml", overrides)
        return Plan.build(config, open_source(config.prompts))

    return build


def everything(plan):
    return [sample for index in range(plan.shards) for sample in plan.shard(index).samples]


@pytest.mark.parametrize("shuffle", ["false", "true"])
@pytest.mark.parametrize(("rows", "per_prompt"), [(1, 1), (100, 1), (101, 1), (37, 7), (3 * BLOCK + 5, 2)])
def test_every_row_is_used_once_per_repetition(rows, per_prompt, shuffle, make):
    plan = make(rows, f"prompts.images_per_prompt={per_prompt}", f"prompts.shuffle={shuffle}")
    samples = everything(plan)
    assert plan.samples == len(samples) == rows * per_prompt
    assert plan.shards == -(-len(samples) // 100)
    assert [sample.index for sample in samples] == list(range(len(samples)))
    wanted = {(row, repetition): 1 for row in range(rows) for repetition in range(per_prompt)}
    assert Counter((sample.prompt_index, sample.repetition) for sample in samples) == wanted
    assert all(sample.prompt == f"row {sample.prompt_index}" for sample in samples)
    ids = [i for index in range(plan.shards) for i in plan.shard(index).columns["id"].to_pylist()]
    assert ids == [sample.prompt_index for sample in samples]


def test_keys_are_unique_sorted_and_without_dots(make):
    samples = everything(make(350))
    keys = [sample.key for sample in samples]
    assert keys == sorted(set(keys))
    assert all(re.fullmatch(r"\d{11}", key) for key in keys)
    assert samples[234].key == "000002" + "00034"
    assert samples[234].shard == 2


def test_shards_do_not_depend_on_the_order_in_which_they_are_asked_for(make):
    plan = make(5000, "prompts.shuffle=true", "prompts.images_per_prompt=3")
    expected = everything(plan)
    indices = list(range(plan.shards))
    random.Random(0).shuffle(indices)
    other = pickle.loads(pickle.dumps(plan))
    found = {index: other.shard(index).samples for index in indices}
    assert [sample for index in range(plan.shards) for sample in found[index]] == expected


def test_seeds_are_of_run_row_and_repetition_whatever_the_order(make):
    plain = {(s.prompt_index, s.repetition): s.seed for s in everything(make(500, "prompts.images_per_prompt=2"))}
    shuffled = everything(make(500, "prompts.images_per_prompt=2", "prompts.shuffle=true"))
    assert {(s.prompt_index, s.repetition): s.seed for s in shuffled} == plain
    assert [s.prompt_index for s in shuffled[::2]] != list(range(500))
    assert len(set(plain.values())) == 1000
    assert all(0 <= seed < 2**63 for seed in plain.values())
    others = {s.seed for s in everything(make(500, "seed=1"))}
    assert not others & set(plain.values())


def test_seeds_and_shuffle_are_the_same_in_every_version():
    """These numbers are in every corpus: if they change, SEMANTICS must be raised."""
    assert sample_seed(0, 0, 0) == 7238831667829611812
    assert sample_seed(3, 12, 1) == 3512198152527710840
    assert [Order(10, True, 0).row(i) for i in range(10)] == [6, 8, 0, 4, 9, 7, 1, 5, 3, 2]
    assert [Order(5 * SPAN, True, 7).row(i) for i in (0, 1, SPAN, 5 * SPAN - 1)] == [60450, 41261, 29772, 19030]


def test_a_row_may_set_its_own_seed_size_and_negative_prompt(make):
    def row(i):
        return '{"prompt": "a", "seed": 7, "size": "64x128", "negative_prompt": "grey"}' if i else '{"prompt": "b"}'

    samples = everything(make(2, "prompts.images_per_prompt=2", row=row))
    assert [(s.width, s.height) for s in samples] == [(64, 64)] * 2 + [(64, 128)] * 2
    assert [s.negative_prompt for s in samples] == ["dull"] * 2 + ["grey"] * 2
    assert samples[2].seed == 7
    assert samples[3].seed not in (7, samples[2].seed)


def test_further_seeds_differ_and_the_first_is_the_planned_one(make):
    samples = everything(make(200))
    assert [further_seed(sample, 0) for sample in samples] == [sample.seed for sample in samples]
    seeds = {further_seed(sample, attempt) for sample in samples for attempt in range(5)}
    assert len(seeds) == 1000
    assert max(seeds) < 2**63


def test_batches_are_of_one_size_and_one_length_of_texts_in_the_order_of_keys(make):
    samples = everything(make(10))

    def cut(batch_size, wide=(), long=()):
        mixed = [replace(s, width=128) if s.index in wide else s for s in samples]
        found = batches(mixed, batch_size, lambda sample: 1 + (sample.index in long))
        return [[s.index for s in batch] for batch in found]

    assert cut(2, wide=(3, 4, 5, 9)) == [[0, 1], [2, 6], [7, 8], [3, 4], [5, 9]]
    assert cut(4, wide=(0, 3, 4)) == [[0, 3, 4], [1, 2, 5, 6], [7, 8, 9]]
    assert cut(3, long=(0, 2, 3)) == [[1, 4, 5], [6, 7, 8], [9], [0, 2, 3]]
    assert cut(2, wide=(1, 2, 8), long=(0, 2)) == [[3, 4], [5, 6], [7, 9], [0], [1, 8], [2]]
    assert cut(4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches([], 4) == []


def test_sizes_by_turns_take_no_more_batches_than_sizes_one_after_another(make):
    samples = everything(make(64))
    turns = [replace(s, width=64 * (1 + s.index % 4)) for s in samples]
    assert [len(batch) for batch in batches(turns, 16)] == [16] * 4
    assert batches(turns, 16) == batches(sorted(turns, key=lambda sample: sample.width), 16)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 64, 65, 1000])
def test_permuted_is_a_permutation_and_depends_on_its_key(length):
    one = [permuted(i, length, "a", 0) for i in range(length)]
    assert sorted(one) == list(range(length))
    assert length < 64 or one != [permuted(i, length, "a", 1) for i in range(length)]


@pytest.mark.parametrize("rows", [1, BLOCK, BLOCK + 1, SPAN, SPAN + 1, 3 * SPAN + BLOCK + 7])
def test_the_shuffle_is_a_permutation(rows):
    order = Order(rows, True, 5)
    assert sorted(map(order.row, range(rows))) == list(range(rows))


def test_a_shuffled_shard_draws_from_few_places_and_neighbours_part():
    rows = 1000 * BLOCK
    order = Order(rows, True, 5)
    shard = [order.row(i) for i in range(10_000, 11_000)]
    assert len({row // BLOCK for row in shard}) <= 16
    assert max(shard) - min(shard) > rows // 2
    windows = {}
    for position in range(0, 40 * SPAN, 97):
        windows.setdefault(order.row(position) // BLOCK, set()).add(position // SPAN)
    assert all(len(seen) == 1 for seen in windows.values())
    steps = [abs(a - b) for a, b in pairwise(shard)]
    assert sum(step == 1 for step in steps) < 5


def test_limit_uses_the_first_rows_only(make):
    plan = make(500, "prompts.limit=120", "prompts.shuffle=true")
    assert (plan.prompts, plan.shards) == (120, 2)
    assert {s.prompt_index for s in everything(plan)} == set(range(120))
    assert make(50, "prompts.limit=120").prompts == 50


def test_bad_rows_are_refused_before_any_work_or_fail_alone(tmp_path):
    """Rows are read by the block, and a shuffled block is spread over many shards."""
    bad = {BLOCK + 7, 2 * BLOCK + 100}
    prompts = [" " if i in bad else f"row {i}" for i in range(3 * BLOCK)]
    pq.write_table(pa.table({"prompt": prompts, "id": range(3 * BLOCK)}), tmp_path / "prompts.parquet")
    (tmp_path / "c.yaml").write_text(CONFIG.replace("jsonl", "parquet"))
    config = load_config(tmp_path / "c.yaml", ["prompts.shuffle=true"])
    fault = "column 'prompt' is blank; expected a prompt"
    with pytest.raises(ConfigError, match=rf"prompts.parquet: row {BLOCK + 8}: {fault}; 2 of 3,072 rows cannot"):
        Plan.build(config, open_source(config.prompts))
    config.prompts.bad_rows = BadRows.skip
    plan = Plan.build(config, open_source(config.prompts))
    samples = everything(plan)
    assert {sample.prompt_index: sample.fault for sample in samples if sample.fault} == dict.fromkeys(bad, fault)
    assert {sample.prompt for sample in samples if not sample.fault} == {p for p in prompts if p != " "}
    ids = [i for index in range(plan.shards) for i in plan.shard(index).columns["id"].to_pylist()]
    assert ids == [sample.prompt_index for sample in samples]
    config.prompts.bad_rows, config.prompts.limit = BadRows.fail, BLOCK  # then no bad row is drawn
    assert Plan.build(config, open_source(config.prompts)).looked.bad == 0


def test_bad_rows_change_no_identity_and_nothing_of_their_neighbours(make):
    def row(i):
        return "{" if i == 3 else f'{{"prompt": "row {i}"}}'

    with pytest.raises(ConfigError, match=r"row 4: is not valid JSON: .*; 1 of 10 rows cannot be drawn: mend them"):
        make(10, row=row)
    skipping = everything(make(10, "prompts.bad_rows=skip", row=row))
    whole = everything(make(10, row=lambda i: f'{{"prompt": "row {i}"}}'))
    assert [a == b for a, b in zip(skipping, whole, strict=True)] == [i != 3 for i in range(10)]
    good = make(5)
    assert good.identity == make(5, "prompts.bad_rows=skip").identity
    with pytest.raises(ConfigError, match=r"row 1: .*; 10 of 10 rows cannot be drawn: expected some that can"):
        make(10, "prompts.bad_rows=skip", row=lambda i: "{")


def test_a_long_source_is_looked_at_in_places_and_by_its_footers(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "WHOLE", 1000)
    monkeypatch.setattr(tables, "SAMPLED", 320)
    monkeypatch.setattr(tables, "PLACES", 8)
    prompts = [f"row {i}" for i in range(5000)]
    (tmp_path / "c.yaml").write_text(CONFIG.replace("jsonl", "parquet"))
    config = load_config(tmp_path / "c.yaml")

    def plan(**columns):
        pq.write_table(pa.table({"prompt": prompts, **columns}), tmp_path / "prompts.parquet", row_group_size=250)
        return Plan.build(config, open_source(config.prompts))

    assert plan().looked.rows == 320
    sizes = ["64x64"] * 5000
    sizes[10], sizes[4999] = "63x64", "63x64"
    with pytest.raises(ConfigError, match=r"row 11: .*; 1 of 320 rows looked at, of 5,000, cannot be drawn"):
        plan(size=sizes)
    sizes[10] = "64x64"
    samples = everything(plan(size=sizes))  # the last row of a group is met only while drawing
    assert [s.prompt_index for s in samples if s.fault] == [4999]
    prompts[3456] = None
    with pytest.raises(ConfigError, match=r"row 3457: column 'prompt' is null; expected a prompt; 1 of 530 rows"):
        plan()


def test_plans_that_cannot_be(make):
    with pytest.raises(ConfigError, match=r"prompts.jsonl has no prompts"):
        make(0)
    with pytest.raises(ConfigError, match=r"makes 2,000,000 shards of 2,000,000 images; .* expected at least 2"):
        make(2, "prompts.images_per_prompt=1000000", "output.samples_per_shard=1")
    with pytest.raises(IndexError):
        make(5).shard(1)


def test_the_identity_follows_the_content_of_the_source(make):
    one, two = make(5).identity, make(6).identity
    assert one.digest != two.digest
    assert one.digest == make(5).identity.digest == make(5).summary().identity.digest


def test_a_template_is_every_combination_and_nothing_is_materialised(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "model: {path: diorama, dtype: float32}\ngeneration: {size: [64, 64], compile: none}\n"
        "prompts:\n"
        "  template: 'a {animal} {place}, {animal} {{}}'\n"
        "  values: {place: [here, there, nowhere], animal: [cat, dog]}\n"
        "output: {path: x}\n"
    )
    config = load_config(tmp_path / "c.yaml")
    plan = Plan.build(config, open_source(config.prompts))
    assert plan.samples == 6
    samples = plan.shard(0).samples
    assert samples[0].prompt == "a cat here, cat {}"
    assert plan.shard(0).columns.slice(5, 1).to_pylist() == [{"animal": "dog", "place": "nowhere"}]
    assert len({sample.prompt for sample in samples}) == 6
    assert plan.column_schema.names == ["animal", "place"]


def test_a_template_of_a_hundred_million_plans_at_once(tmp_path):
    digits = "[" + ", ".join(f"'{i}'" for i in range(100)) + "]"
    (tmp_path / "c.yaml").write_text(
        "model: {path: diorama, dtype: float32}\ngeneration: {size: [64, 64], compile: none}\n"
        "prompts:\n  template: '{a} {b} {c} {d}'\n  shuffle: true\n"
        f"  values: {{a: {digits}, b: {digits}, c: {digits}, d: {digits}}}\n"
        "output: {path: x}\n"
    )
    config = load_config(tmp_path / "c.yaml")
    started = time.perf_counter()
    plan = Plan.build(config, open_source(config.prompts))
    samples = plan.shard(plan.shards // 2).samples
    assert time.perf_counter() - started < 5  # seconds; materialising takes minutes
    assert plan.samples == 100_000_000
    for sample in samples[:50]:
        assert sample.prompt == " ".join(str(sample.prompt_index // 100**k % 100) for k in (3, 2, 1, 0))


def test_a_template_of_more_combinations_than_python_counts_serves_where_a_limit_is_given(tmp_path):
    names = [f"f{i}" for i in range(70)]  # 2^70 combinations
    values = ", ".join(f"{name}: [a, b]" for name in names)
    template = " ".join(f"{{{name}}}" for name in names)
    (tmp_path / "c.yaml").write_text(
        f"model: {{path: diorama, dtype: float32}}\ngeneration: {{size: [64, 64], compile: none}}\n"
        f"prompts: {{template: '{template}', values: {{{values}}}}}\noutput: {{path: x}}\n"
    )
    config = load_config(tmp_path / "c.yaml", ["prompts.limit=3"])
    samples = everything(Plan.build(config, open_source(config.prompts)))
    assert [sample.prompt.split()[-2:] for sample in samples] == [["a", "a"], ["a", "b"], ["b", "a"]]
    config = load_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="keys can name 1,000,000") as caught:
        Plan.build(config, open_source(config.prompts))
    assert "\n" not in str(caught.value)
