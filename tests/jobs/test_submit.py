"""``make job``: a head of its own, whatever else runs on the machine."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
model: {{path: {model}, dtype: float32}}
prompts: {{source: {folder}/prompts.txt}}
generation: {{steps: 1, size: [32, 32], compile: none, batch_size: 2}}
output: {{path: unused, samples_per_shard: 2}}
cluster: {{device: cpu, workers: {{min: 1, max: 1}}}}
"""
# What `ray start --head` takes: for the head, its dashboard, the Ray client, the dashboard agent and the first workers.
USUAL_PORTS = (6379, 8265, 10001, 52365, *range(10002, 10012))


@pytest.fixture
def usual_ports_taken() -> Iterator[None]:
    with contextlib.ExitStack() as held:
        for port in USUAL_PORTS:
            with contextlib.suppress(OSError):  # another Ray on this machine has it: all the better
                held.enter_context(socket.create_server(("", port)))
        yield


@pytest.mark.timeout(900)  # a head, a job and a cluster's workers, each started anew: half a minute of two idle cores
def test_a_job_runs_to_its_end_beside_another_ray(tmp_path: Path, usual_ports_taken: None) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    (tmp_path / "config.yaml").write_text(CONFIG.format(model=tiny.path(), folder=tmp_path))
    binaries = Path(sys.executable).parent
    done = subprocess.run(  # -o: what is installed already is not installed again
        ["make", "-C", str(ROOT), "-o", ".venv/.run", "job", f"BIN={binaries}",
         f"CONFIG={tmp_path / 'config.yaml'} output.path={tmp_path / 'corpus'}"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{tmp_path / 'corpus'}: 1 of 1 shards" in done.stdout
    assert (tmp_path / "corpus/train/000000.tar").exists()


@pytest.mark.parametrize("folder", ["/tmp/" + 60 * "x", "/proc/nowhere"])
def test_a_folder_that_cannot_hold_sockets_is_a_line(folder: str) -> None:
    environment = {**os.environ, "RAY_TMPDIR": folder, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(ROOT / "jobs/submit.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"lacuna: {folder} is no folder for the sockets of Ray" in done.stderr
    assert "set RAY_TMPDIR (TMPDIR is not used) to a short folder" in done.stderr


def test_what_a_head_said_that_does_not_start_is_shown(tmp_path: Path) -> None:
    ray = tmp_path / "ray"
    ray.write_text("#!/bin/sh\n[ $1 = start ] && echo 'OSError: the reason'\nexit 1\n")
    ray.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(ROOT / "jobs/submit.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "OSError: the reason", "lacuna: the Ray head did not start; its last lines are above",
    ]  # fmt: skip
    assert done.stdout == ""


def test_a_python_whose_path_has_a_blank_is_a_line(tmp_path: Path) -> None:
    blank = tmp_path / "a b"
    blank.mkdir()
    (blank / "python").symlink_to(sys.executable)
    environment = {**os.environ, "PATH": f"{blank}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(ROOT / "jobs/submit.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"lacuna: Ray cannot start {blank}/python, whose path has a blank")
