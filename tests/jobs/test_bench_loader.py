"""jobs/bench_loader.py: what it cannot measure is refused in a line before it makes a corpus."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "jobs" / "bench_loader.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--only", "decode,memry"],
            "--only memry: expected some of decode,index,memory,cold,s3 (did you mean 'memory'?)",
        ),
        (["--rounds", "0"], "--rounds 0: expected 1 or more"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments, said, tmp_path):
    command = [sys.executable, str(SCRIPT), *arguments, "--folder", str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"bench_loader.py: error: {said}"
    assert not (tmp_path / "made").exists()
