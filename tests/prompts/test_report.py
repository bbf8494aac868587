"""The dry run's figures."""

from itertools import pairwise

import pytest

from pipeline.config import load_config
from pipeline.prompts import Plan, open_source
from pipeline.prompts.report import OVERHEAD, PLACES, SURVEYED, Measured, _spread, plan_report, source_lines

CONFIG = """\
model: {path: diorama, dtype: float32}
generation: {size: [64, 64], compile: none}
erasure: {concepts: [{name: cat, aliases: [kitten]}, {name: knife}, {name: bomb}], recipe: []}
prompts: {source: prompts.txt, images_per_prompt: 3}
output: {path: x, samples_per_shard: 50}
cluster: {workers: {min: 1, max: 4}}
"""


def made(folder, prompts, **given):
    (folder / "c.yaml").write_text(CONFIG)
    (folder / "prompts.txt").write_text("\n".join(prompts))
    config = load_config(folder / "c.yaml")
    plan = Plan.build(config, open_source(config.prompts))
    return plan, plan_report(config, plan, **given)


def test_a_small_source_is_looked_at_whole(tmp_path):
    prompts = ["a cat"] * 10 + ["kittens and knives"] * 5 + ["a dog"] * 85
    plan, report = made(tmp_path, prompts)
    assert (report.prompts, report.samples, report.shards) == (100, 300, 6)
    assert {name: share.hits for name, share in report.shares.items()} == {"cat": 15, "knife": 5, "bomb": 0}
    assert report.any_share.hits == 15
    assert report.any_share.interval == (0.15, 0.15)
    assert report.first == plan.shard(0).samples[:8]
    text = report.text()
    assert "15.00 % of prompts name a listed concept (all looked at)" in text
    assert f"{report.first[0].key}  {report.first[0].seed:19d}  a cat" in text
    assert plan.identity.digest in text
    assert (report.seconds, report.total_bytes, report.cost) == (None, None, None)
    assert not any(line.startswith(("time", "size", "cost")) for line in report.lines())


def test_a_large_source_is_looked_at_in_evenly_spread_places(tmp_path):
    """One prompt in eight names a cat, all of them in the first half: a head of the file would say one in four."""
    rows = 40_000
    prompts = ["a cat" if i % 4 == 0 and i < rows // 2 else "a dog" for i in range(rows)]
    _, report = made(tmp_path, prompts)
    assert report.any_share.trials == SURVEYED
    low, high = report.any_share.interval
    assert low < 0.125 < high
    assert high - low < 0.02
    assert "95 % interval" in report.text()


def test_the_places_are_spread_over_the_whole_and_do_not_overlap():
    for rows in (SURVEYED + 1, 12_345, 10**8):
        runs = _spread(rows)
        assert (runs[0].start, runs[-1].stop, len(runs)) == (0, rows, PLACES)
        assert all(a.stop <= b.start for a, b in pairwise(runs))
        assert sum(map(len, runs)) == SURVEYED


def test_time_size_and_cost_follow_the_measured_batch(tmp_path):
    measured = Measured(seconds_per_image=2.0, bytes_per_image=1000.0)
    _, report = made(tmp_path, ["a"] * 600, measured=measured, price=3.0)
    assert report.seconds == 1800 * 2 / 4
    assert report.total_bytes == 1800 * (1000 + OVERHEAD)
    assert report.worker_hours == pytest.approx(1.0)
    assert report.cost == pytest.approx(3.0)
    text = report.text()
    assert "about 15 min on 4 workers" in text
    assert "cost      about 1 worker-hours, 3.00 at 3 per worker and hour" in text
    assert "about 7.23 MB" in text


def test_without_a_price_the_cost_is_said_in_hours_of_workers(tmp_path):
    measured = Measured(seconds_per_image=20.0, bytes_per_image=1000.0)
    _, report = made(tmp_path, ["a"] * 6000, measured=measured)
    assert report.cost is None
    assert [line for line in report.lines() if line.startswith("cost")] == ["cost      about 100 worker-hours"]


def test_what_columns_mean_and_which_rows_are_bad_is_said(tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG.replace("txt", "csv"))
    (tmp_path / "prompts.csv").write_text("prompt,seed,width,height,id\na,1,,,x\nb,,64,64,y\n ,,,,z\n")
    config = load_config(tmp_path / "c.yaml", ["prompts.bad_rows=skip"])
    plan = Plan.build(config, open_source(config.prompts))
    lines = source_lines(config, plan)
    assert lines == source_lines(config, plan, notable=True)
    assert lines[0] == (
        "columns   'prompt' is the prompt; 'seed' sets the seed of 1 rows; 'width' and 'height' set the size of 1 "
        "rows; passing on: id (by their names; prompts.columns may say otherwise)"
    )
    assert lines[1] == (
        f"bad rows  1, each a failed row of the manifest; the first: {tmp_path}/prompts.csv: row 3: "
        "column 'prompt' is blank; expected a prompt (3 of 3 rows looked at)"
    )
    assert len(lines) == 2
    assert lines[1] in plan_report(config, plan).text()
    config.prompts.columns, config.prompts.limit = {"prompt": "id", "seed": None}, 2
    plan = Plan.build(config, open_source(config.prompts))
    assert source_lines(config, plan) == [
        "columns   'id' is the prompt; passing on: prompt, seed, width, height; 'width' and 'height' set "
        "nothing, as prompts.columns does not say what they are (as prompts.columns says)",
        "bad rows  none (2 of 2 rows looked at)",
    ]
    config.prompts.columns = {"prompt": "id", "pass": ["prompt", "seed"]}
    assert "set nothing" not in source_lines(config, Plan.build(config, open_source(config.prompts)))[0]
    config.prompts.columns = {"prompt": "id", "width": "width", "height": "height"}
    plan = Plan.build(config, open_source(config.prompts))
    assert "'seed' sets nothing, as" in source_lines(config, plan, notable=True)[0]


def test_words_count_as_people_write_them_and_exceptions_do_not(tmp_path):
    keep = CONFIG.replace("name: cat,", "name: cat, keep: [cat burglar],")
    assert keep != CONFIG
    (tmp_path / "c.yaml").write_text(keep)
    (tmp_path / "prompts.txt").write_text("black_cat\n1cat\na c\u00adat\na cat burglar\na wildcat\n")
    config = load_config(tmp_path / "c.yaml")
    report = plan_report(config, Plan.build(config, open_source(config.prompts)))
    assert report.shares["cat"].hits == report.any_share.hits == 3
