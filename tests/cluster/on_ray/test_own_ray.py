"""The Ray that a run starts itself: its processes are killed, it is started again, and the bytes are the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.config import load_config
from pipeline.corpus import failures, open_store, verify
from pipeline.run import run
from tests import tiny
from tests.cluster.on_ray.test_ray import ROOT, Lines, bytes_of, shards_done, write

pytestmark = pytest.mark.slow


def descendant(run: int, title: str) -> psutil.Process:
    """The first process under *run* with this in its command line, once it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for child in psutil.Process(run).children(recursive=True):
            try:
                if title in " ".join(child.cmdline()):
                    return child
            except psutil.Error:  # gone meanwhile
                continue
        time.sleep(0.05)
    raise AssertionError(f"no {title} was started")


def test_it_is_started_again_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    """Without its raylet Ray waits for ever; all its other processes are killed by jobs/chaos.py."""
    prompts = [f"a photo of a {animal} {i}" for i in range(6) for animal in ("cat", "dog", "lion", "wolf")]
    path, output, reference = write(tmp_path, tiny.save(tmp_path), prompts, steps=25), tmp_path / "a", tmp_path / "b"
    command = [sys.executable, "-m", "pipeline.cli", "run", str(path), f"output.path={output}"]
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    while shards_done(output) < 1:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    worker = descendant(process.pid, "ray::WorkerActor")
    os.kill(descendant(process.pid, "/raylet ").pid, signal.SIGKILL)
    assert psutil.wait_procs([worker], timeout=60)[1] == [], "workers without their raylet end"
    _, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert "lacuna: Ray's raylet has died; starting Ray again\n" in err
    assert "Traceback" not in err
    assert (
        run(load_config(path, [f"output.path={reference}", "cluster.backend=local"]), progress=Lines()).exit_code == 0
    )
    assert bytes_of(output) == bytes_of(reference)
    assert verify(str(output)) == []
    assert list(failures(open_store(str(output)))) == []
