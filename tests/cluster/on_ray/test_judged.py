"""A judge behind an endpoint on a real Ray: it fails, it is down, a worker and the driver are killed, and nothing is
lost, nor asked again once it is committed."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.cluster.protocol import FailureKind
from pipeline.config import load_config
from pipeline.corpus import Output, failures, open_store, publish_all, verify
from pipeline.run import run
from tests import tiny
from tests.audit.test_endpoint import serving, url
from tests.cluster.on_ray.test_own_ray import descendant
from tests.cluster.on_ray.test_ray import ROOT, Lines, bytes_of, shards_done

pytestmark = pytest.mark.slow

CONFIG = """
model: {{path: {model}, dtype: float32}}
erasure: {{concepts: [{{name: light, aliases: [lamp]}}], recipe: []}}
prompts: {{source: prompts.txt}}
generation: {{steps: 25, size: [32, 32], batch_size: 4, compile: none}}
audit:
  detectors: [{{detector: "tests.audit.test_endpoint:Asking", options: {{endpoint: "{endpoint}", threads: 2}}}}]
  policy: keep
output: {{path: unused, samples_per_shard: 4, image_format: png}}
cluster: {{device: cpu, workers: {{min: 1, max: 2}}}}
"""


def pictures_of(corpus: Path) -> set[bytes]:
    """The pixels of the pictures that are committed."""
    found = set()
    for path in corpus.glob("train/*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".png"):
                    data = tar.extractfile(member)
                    assert data is not None
                    found.add(np.asarray(Image.open(io.BytesIO(data.read()))).tobytes())
    return found


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_fails_and_is_down_and_workers_and_driver_are_killed(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"a light and a dog {i}\n" for i in range(48)))
    output, reference = tmp_path / "corpus", tmp_path / "reference"
    with serving() as judge:
        path = tmp_path / "config.yaml"
        path.write_text(CONFIG.format(model=tiny.save(tmp_path), endpoint=url(judge)))
        undisturbed = load_config(path, [f"output.path={reference}", "cluster.backend=local"])
        assert run(undisturbed, progress=Lines()).exit_code == 0
        judge.fails, judge.requests = True, 0
        judge.answered.clear()
        command = [sys.executable, "-m", "pipeline.cli", "run", str(path), f"output.path={output}"]
        environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

        first = start()
        until(lambda: shards_done(output) >= 1, first)
        os.kill(descendant(first.pid, "ray::WorkerActor").pid, signal.SIGKILL)
        judge.last = judge.requests  # it is down from now on
        until(lambda: judge.requests >= judge.last + 6, first)
        waiting = shards_done(output)
        judge.last = 10**9
        until(lambda: shards_done(output) >= waiting + 3, first)
        actors = [child for child in psutil.Process(first.pid).children(recursive=True) if "Actor" in child.name()]
        assert actors
        first.kill()
        first.communicate()
        assert psutil.wait_procs(actors, timeout=60)[1] == [], "who draws and commits ends with it"
        held = Output.of(load_config(path, [f"output.path={output}"]).output)
        publish_all(held.store, held.evidence)  # what was committed and not put in its place yet
        committed = pictures_of(output)
        assert 0 < len(committed) < 48
        judge.answered.clear()

        second = start()
        _, err = second.communicate(timeout=300)
        assert second.returncode == 0, err
        assert "Traceback" not in err
        assert not committed & judge.answered.keys(), "of what is committed nothing is asked again"
        assert judge.answered.keys() == pictures_of(output) - committed
    assert bytes_of(output) == bytes_of(reference)
    assert verify(str(output)) == []
    assert {failure.kind for failure in failures(open_store(str(output)))} <= {FailureKind.crash}
