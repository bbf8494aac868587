"""`make gpu-check`, and what eyes cost: without a GPU a line says so; at a tiny size they run on a CPU."""

import json
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


@pytest.mark.slow
def test_what_eyes_cost_is_told_beside_a_picture(tmp_path: Path):
    results = tmp_path / "eyes.json"
    tiny = ("--device", "cpu", "--size", "tiny", "--batch", "2", "--rounds", "1", "--steps", "2")
    done = run("eyes", *tiny, "--results", str(results))
    assert done.returncode == 0, done.stderr
    figures = json.loads(results.read_text())["figures"]
    drawn = figures.pop("sdxl_seconds_per_picture")
    assert drawn > 0
    assert set(figures) == {"clip", "open_vocabulary", "quality"}
    for name, found in figures.items():
        share = found["ms_per_picture"] / 1000 / drawn
        assert found["share_of_a_picture"] == pytest.approx(share)
        assert re.search(rf"^{name} +{found['ms_per_picture']:.2f} +{share:.2%}$", done.stdout, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_eyes_say_so_in_a_line():
    done = run("eyes")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("gpu-check: torch sees no CUDA device here")
