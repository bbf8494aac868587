"""The Ray that a run starts itself: its processes are killed, it is started again, and the bytes are the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.corpus import failures, open_store, verify
from tests import tiny
from tests.cluster.test_ray import ROOT, bytes_of, shards_done, write


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


@pytest.mark.parametrize("title", ["/raylet ", "/gcs_server "])
def test_it_is_started_again_and_the_bytes_are_the_same(title: str, tmp_path: Path) -> None:
    """One of each kind: the others, and all of them mixed, are killed by jobs/chaos.py."""
    prompts = [f"a photo of a {animal} {i}" for i in range(8) for animal in ("cat", "dog", "lion", "wolf")]
    path = write(tmp_path, tiny.save(tmp_path), prompts, steps=25)
    command = [sys.executable, "-m", "pipeline.cli", "run", str(path), f"output.path={tmp_path}/corpus"]
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    while shards_done(tmp_path / "corpus") < 2:
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    worker = descendant(run.pid, "ray::WorkerActor")
    os.kill(descendant(run.pid, title).pid, signal.SIGKILL)
    assert psutil.wait_procs([worker], timeout=60)[1] == [], "workers without their raylet end"
    _, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    assert f"lacuna: Ray's {title.strip(' /')} has died; starting Ray again\n" in err
    assert "Traceback" not in err
    reference = [*command[:-1], f"output.path={tmp_path}/reference", "cluster.backend=local"]
    subprocess.run(reference, cwd=ROOT, env=environment, check=True)
    assert bytes_of(tmp_path / "corpus") == bytes_of(tmp_path / "reference")
    assert verify(str(tmp_path / "corpus")) == []
    assert list(failures(open_store(str(tmp_path / "corpus")))) == []
