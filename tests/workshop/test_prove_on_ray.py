"""A sweep through Ray whose driver and then whose worker is killed ends in the table of an undisturbed local one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.on_ray.test_own_ray import descendant
from tests.cluster.on_ray.test_ray import ROOT, when

pytestmark = pytest.mark.slow

CONFIG = """
model: {path: diorama, scheduler: UniPCMultistepScheduler}
erasure: {concepts: [{name: cat}], recipe: []}
words: {vocabulary: words.txt, cache: CACHE, pictures: 8}
prompts: {template: "a {thing}", values: {thing: [dog]}}
generation: {steps: 4, size: [64, 64], batch_size: 4}
audit: {detectors: [{detector: diorama}], policy: keep}
output: {path: out}
cluster: {device: cpu, workers: {min: 1, max: 1}}
"""
# Shards of four pictures, so that there is something to kill between; one round, and no words of the dictionary.
COMMAND = """
import sys
from pipeline.cli import main
from pipeline.evaluation.words import cache, selection, verdict
cache.SHARD, selection.KINDS, verdict.ROUNDS = 4, 0, 1
sys.exit(main(sys.argv[1:]))
"""


def prove(config: Path, cache: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, "words", str(config), f"words.cache={cache}", *overrides]
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, "--prove", "all", "--json"], cwd=config.parent, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def table(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return json.loads(out)


@pytest.mark.timeout(900)  # Ray is started twice, the model loaded four times
def test_a_sweep_is_killed_and_resumed_and_the_table_is_the_same(tmp_path: Path) -> None:
    config, cache = tmp_path / "config.yaml", tmp_path / "cache"
    (tmp_path / "words.txt").write_text("kitten\ntiger\n")
    config.write_text(CONFIG.replace("CACHE", str(cache)))

    def committed() -> int:
        return len(list(cache.glob("*/sweeps/*/*/commits/*.json")))

    driver = prove(config, cache)
    children: list[psutil.Process] = []
    watcher = when(lambda: committed() >= 1 or driver.poll() is not None, lambda: None)
    watcher.join()
    assert driver.poll() is None, driver.communicate()
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.communicate()
    assert psutil.wait_procs(children, timeout=120)[1] == [], "with its driver all of it ends"
    left = committed()

    again = prove(config, cache)
    killed = when(
        lambda: committed() > left or again.poll() is not None,
        lambda: os.kill(descendant(again.pid, "ray::WorkerActor").pid, signal.SIGKILL),
    )
    found = table(again)
    killed.join()
    assert found == table(prove(config, tmp_path / "undisturbed", "cluster.backend=local"))
    assert found["concepts"]["cat"]["words"]["kitten"]["verdict"] == "means"
    assert len(list(cache.glob("*/sweeps/*/*/run.yaml"))) == len(
        list((tmp_path / "undisturbed").glob("*/sweeps/*/*/run.yaml"))
    ), "what was interrupted is gone on with, not begun anew"
