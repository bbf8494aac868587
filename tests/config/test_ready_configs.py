"""The configs that ship: shown and planned offline, without a model."""

from pathlib import Path

import pytest

from pipeline.cli import main

CONFIGS = sorted(str(path) for path in Path("configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS)
def test_show_and_plan(path: str, capsys):
    assert main(["show", path]) == 0
    shown = capsys.readouterr().out
    assert "# identity: " in shown
    assert "recipe:" in shown
    assert main(["plan", path, "--no-measure"]) == 0
    assert "shard" in capsys.readouterr().out


def test_one_for_every_family():
    assert {"sd21", "sdxl", "sd3", "flux"} <= {Path(path).stem for path in CONFIGS}
