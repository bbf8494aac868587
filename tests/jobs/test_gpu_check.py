"""`make gpu-check`: refuses a machine without a GPU in a line; the script itself runs on a CPU at a tiny size."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "gpu_check.py"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_a_line():
    done = run()
    assert done.returncode != 0
    assert done.stderr.startswith("gpu-check: torch sees no CUDA device here")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_script_measures_the_engine_with_and_without_cease():
    done = run("--device", "cpu", "--size", "tiny", "--batch", "2", "--batches", "1", "--steps", "2")
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^(none|cease) +(\S+) +(\S+) +(\S+) +(\S+)$", done.stdout, re.MULTILINE)
    rows = {name: [float(value.rstrip("%")) for value in values] for name, *values in lines}
    assert set(rows) == {"none", "cease"}
    for images_per_second, busy, tflop, roofline in rows.values():
        assert images_per_second > 0
        assert 0 < busy <= 100
        assert tflop > 0
        assert 0 < roofline < 150  # a tiny product does not reach what the device can
