"""What a measurement writes down, and what is refused as none."""

import argparse
import json
import re
from datetime import date
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, StoreError
from pipeline.evaluation.results import (
    KEYS,
    ROOT,
    add_results_option,
    command_line,
    machine,
    read_result,
    write_result,
)


def write(path: Path, **figures) -> None:
    write_result(path, what="a measurement", config={"rows": 3}, figures=figures, environment=machine())


def test_a_result_says_what_made_it_when_and_where(tmp_path):
    path = tmp_path / "new folder" / "one.json"
    write(path, seconds=1.5)
    result = read_result(path)
    assert tuple(result) == KEYS
    assert (result["config"], result["figures"]) == ({"rows": 3}, {"seconds": 1.5})
    assert abs((date.today() - date.fromisoformat(result["date"])).days) <= 1
    assert result["version"]["version"]
    here = result["environment"]
    assert here["cores"] >= 1
    assert here["cpu"]
    assert re.match(r"\d+\.\d+", here["torch"])
    assert "gpu" not in here
    assert [file.name for file in path.parent.iterdir()] == ["one.json"]


def test_a_figure_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "one.json", seconds=float("nan"))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/one\.json: cannot be written"):
        write(tmp_path / "file" / "one.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"one\.json: is missing; .*--results"),
        ("{", "is no JSON"),
        ("[]", "has no 'what'"),
        (json.dumps({"what": "it", "command": "c"}), "has no 'date', so no measurement wrote it"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, content, said):
    path = tmp_path / "one.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        read_result(path)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        ([str(ROOT / "jobs/bench_plan.py"), "-n", "10", "--results", "a.json"], "python jobs/bench_plan.py -n 10"),
        ([str(ROOT / "jobs/bench.py"), "--results=a.json", "--repeats", "5"], "python jobs/bench.py --repeats 5"),
        (["/usr/bin/lacuna", "evaluate", "erasure", "a b.yaml"], "lacuna evaluate erasure 'a b.yaml'"),
        ([str(ROOT / "pipeline/cli.py"), "evaluate", "diorama"], "lacuna evaluate diorama"),
    ],
)
def test_the_command_is_what_one_types_in_a_checkout(argv, command):
    assert command_line(argv) == command


def test_the_option_is_a_path_or_none():
    parser = argparse.ArgumentParser()
    add_results_option(parser)
    assert parser.parse_args([]).results is None
    assert parser.parse_args(["--results", "a/b.json"]).results == Path("a/b.json")
