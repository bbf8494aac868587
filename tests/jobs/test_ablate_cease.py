"""The ablation of CEASE refuses what it cannot go on with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "ablate_cease.py"


def run(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *args], capture_output=True, text=True, cwd=SCRIPT.parents[1])


@pytest.mark.slow
def test_pictures_of_other_weights_are_refused(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"weights": "others"}))
    done = run("--output", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("holds pictures of other weights or settings; give another --output")
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.slow
def test_a_bad_size_is_refused():
    done = run("--size", "0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("--size is 0; expected at least 1")
