"""The READMEs' tables are what the results of measurements say."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from jobs.pages.table import measured
from pipeline.errors import ConfigError
from pipeline.evaluation.results import machine, read_result, write_result
from pipeline.statistics import ratio

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted([*ROOT.glob("pipeline/evaluation/results/*.json"), *ROOT.glob("jobs/results/*.json")])


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "jobs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_what_their_results_say(tables):
    for name in tables.PAGES:
        text = (ROOT / name).read_text()
        assert tables.rendered(text, ROOT / name) == text, f"{name}: run make tables"


def test_every_table_stands_on_a_page_and_every_page_has_one(tables):
    used = {name: re.findall("<!-- table: (.*) -->", (ROOT / name).read_text()) for name in tables.PAGES}
    assert all(used.values())
    assert sorted(name for names in used.values() for name in names) == sorted(tables.TABLES)


def test_every_result_stands_in_a_table(tables, monkeypatch):
    read = []
    monkeypatch.setattr("jobs.pages.table.read_result", lambda path: read.append(path) or read_result(path))
    for render in tables.TABLES.values():
        render(ROOT / "README.md")
    assert set(RESULTS) <= set(read)


def test_every_result_is_whole_and_dated():
    assert RESULTS
    for path in RESULTS:
        found = read_result(path)
        assert date.fromisoformat(found["date"]) <= date.today(), path
        assert re.fullmatch("[0-9a-f]{40}", found["version"]["commit"]), path
        assert found["figures"], path
        assert ("source" in found) == found.get("transcribed", False), path


def test_the_first_page_has_at_most_eight_figures_each_with_its_command_and_day(tables):
    _, _, *rows = tables.headline(ROOT / "README.md").splitlines()
    assert 1 <= len(rows) <= 8
    for row in rows:
        *_, command, when = row.strip("| ").split(" | ")
        assert re.fullmatch(r"`(lacuna|python|make) .*`", command), row
        assert re.match(r"\d{4}-\d\d-\d\d, [0-9a-f]{7}", when), row


def test_what_was_transcribed_is_said_so():
    for path in RESULTS:
        found = read_result(path)
        assert ("transcribed" in measured(found)) == bool(found.get("transcribed")), path


def test_what_cease_costs_is_told_with_the_interval_that_its_job_writes(tables, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.pages.table.ROOT", tmp_path)
    figures = {"identical": True, "CPU shut": ratio([1.0] * 5, [1.0, 1.1, 1.2, 1.1, 1.0])}
    (tmp_path / tables.SPEED).mkdir(parents=True)
    path = tmp_path / tables.SPEED / "bench_cease.json"
    write_result(path, what="cost", config={}, figures=figures, environment=machine())
    head, _, row = tables.cease_cost(tmp_path / "README.md").split("\n\n")[0].splitlines()
    assert head == "|  | clock | time to none (95 %) |"
    assert row == "| no sample concerned | CPU | 1.08 (0.98 to 1.19) |"


def test_figures_without_a_table_of_their_own_are_all_told_and_missing_ones_too(tables, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.pages.table.ROOT", tmp_path)
    render = tables.every_figure("one.json", "make one")
    assert render(tmp_path / "README.md") == "Not measured yet; `make one` measures it."
    figures = {"speed": {"ours": 1234.56, "theirs": {"with jpeg": 0.012345}}, "rows": 1000, "seconds": [1.0, 2.0]}
    write_result(tmp_path / "one.json", what="one", config={}, figures=figures, environment=machine())
    table, made_by = render(tmp_path / "README.md").split("\n\n")
    assert table.splitlines()[2:] == [
        "| speed, ours | 1,235 |",
        "| speed, theirs, with jpeg | 0.01235 |",
        "| rows | 1,000 |",
    ]
    assert made_by.startswith(f"[one.json](one.json): {read_result(tmp_path / 'one.json')['date']}, ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- table: headlin -->\n<!-- end -->", "no table is called 'headlin'.*'headline'"),
        ("<!-- table: headline -->\nand no end", "has no line <!-- end -->"),
        ("<!-- table: headline -->\n<!-- table: speed -->\n<!-- end -->", "has no line <!-- end -->"),
    ],
)
def test_a_wrong_marker_is_refused(tables, text, said):
    with pytest.raises(ConfigError, match=said):
        tables.rendered(text, ROOT / "README.md")


def test_another_figure_makes_a_page_stale_and_is_rendered(tmp_path):
    """In a copy: --check tells, and writes nothing; without it the page has the figure."""
    for folder in ("pipeline", "jobs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "README.md", tmp_path)
    path = tmp_path / "jobs" / "results" / "bench_plan.json"
    found = json.loads(path.read_text())
    found["figures"]["total"] = 987.6
    pages = ("README.md", "jobs/README.md")
    path.write_text(json.dumps(found))

    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": "", "PYTHONPATH": str(tmp_path)}
        script = [sys.executable, str(tmp_path / "jobs" / "tables.py"), *pages, *args]
        return subprocess.run(script, capture_output=True, text=True, env=environment)

    stale = run("--check")
    assert stale.returncode == 1
    assert stale.stdout.splitlines() == [f"{page}: is not what its results say; run make tables" for page in pages]
    assert "987.6" not in (tmp_path / "README.md").read_text()
    assert run().returncode == 0
    assert "987.6 s" in (tmp_path / "README.md").read_text()
    assert run("--check").returncode == 0
    path.unlink()
    missing = run()
    assert missing.returncode == 2
    assert re.fullmatch(r"tables: .*bench_plan\.json: is missing; .*\n", missing.stderr)
