"""Words proved by drawing on tiny SDXL, SD3 and FLUX, through Ray: killed and gone on with, the table is the same."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.audit.detector import Detector
from pipeline.cli import main
from tests import tiny_families

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
model: {{path: {model}, dtype: float32}}
erasure: {{concepts: [{{name: bright picture}}, {{name: dark picture}}], recipe: []}}
words: {{vocabulary: words.txt, cache: CACHE, pictures: 1}}
prompts: {{template: "a {{thing}}", values: {{thing: [tree]}}}}
generation: {{steps: 3, size: [32, 32], batch_size: 16}}
audit: {{detectors: [{{detector: "tests.cluster.on_ray.test_words:Shade"}}], policy: keep}}
output: {{path: out}}
cluster: {{backend: local, device: cpu, workers: {{min: 1, max: 2}}}}
"""
BUDGET = 28  # pictures: 8 of each concept's name and one of each word
WORDS = ("house", "road", "beach", "snow", "fruit", "wolf", "lion", "tiger", "mountain", "people", "night", "bowl")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of one node with two slots, which the tests share."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)


class Shade(Detector):
    """Gives the share of white, or of black."""

    def knows(self, term: str) -> bool:
        return term in ("bright picture", "dark picture")

    def threshold(self, term: str) -> float:
        return 0.5

    def score(self, images: np.ndarray, terms: Sequence[str]) -> np.ndarray:
        white = images.mean(axis=(1, 2, 3)) / 255
        return np.stack([white if term == "bright picture" else 1 - white for term in terms], axis=1).astype(np.float32)


def command(config: Path, cache: Path, backend: str, budget: int) -> list[str]:
    settings = [f"words.cache={cache}", f"cluster.backend={backend}"]
    return ["words", str(config), "--prove", "all", "--budget", str(budget), "--json", *settings]


def table(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    capsys.readouterr()
    assert main(command(*arguments)) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_a_sweep_that_was_killed_and_gone_on_with_ends_in_the_same_table(
    nodes: Any, family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, cache = tmp_path / "config.yaml", tmp_path / "ray"
    config.write_text(CONFIG.format(model=tiny_families.path(family)))
    (tmp_path / "words.txt").write_text("".join(f"{word}\n" for word in WORDS))
    local = table(capsys, config, tmp_path / "local", "local", BUDGET)
    assert (local["words"], local["pictures"]) == (len(WORDS) + 2, BUDGET)
    assert len({*local["concepts"]["bright picture"]["words"], *local["concepts"]["dark picture"]["words"]}) > 2

    arguments = command(config, cache, "ray", BUDGET)
    driver = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(cache.glob("**/run.yaml")):
        assert driver.poll() is None
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    drawn = bool(list(cache.glob("**/commits/*.json")))  # all of it, however quick the driver was
    assert table(capsys, config, cache, "ray", 0 if drawn else BUDGET) == local
