"""What the bench makes of the times it took."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "bench.py"
TIMES = {
    "ours": [2.0, 4.0, 8.0, 4.0, 2.0],
    "loop": [2.2, 4.4, 8.8, 4.4, 2.2],
    "on ray": [2.5, 5.0, 10.0, 5.0, 2.5],
}


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ratios_are_taken_within_a_repeat(bench):
    """So that a machine whose speed drifts fourfold leaves no width where the ratio is always the same."""
    ratios = bench.over(TIMES)
    assert set(ratios) == {"ours", "on ray"}
    assert set(ratios["ours"]) == {"loop", "on ray"}
    assert ratios["ours"]["loop"] == pytest.approx({"ratio": 1.1, "low": 1.1, "high": 1.1})
    assert ratios["on ray"]["ours"] == pytest.approx({"ratio": 0.8, "low": 0.8, "high": 0.8})


def test_the_table_has_a_line_for_every_side_and_ratio(bench):
    assert bench.sides(TIMES, 8)["ours"] == {"median": 2.0, "least": 1.0, "most": 4.0}
    lines = bench.table(TIMES, 8).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["ours", "loop", "on"]
    assert lines[2].endswith("1.100 (1.100 to 1.100)")
    assert "ours on ray over loop: 0.880 (0.880 to 0.880)" in lines
    without = bench.table({name: TIMES[name] for name in ("ours", "loop")}, 8)
    assert "on ray" not in without
