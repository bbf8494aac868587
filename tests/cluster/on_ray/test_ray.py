"""Real Ray, real processes, a tiny model: kills and poison, each ending in the bytes of an undisturbed local run."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pipeline.cluster.protocol import Snapshot
from pipeline.config import load_config
from pipeline.corpus import committed, failures, open_store, verify
from pipeline.corpus.evidence import read_pairs
from pipeline.errors import ConfigError, StoreError
from pipeline.run import run
from tests import tiny
from tests.progress import Lines

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
model: {{path: {model}, dtype: float32}}
erasure:
  concepts: [{{name: cat}}]
  recipe: [{{method: "tests.cluster.poison:Poison"}}]
prompts: {{source: prompts.txt}}
generation: {{steps: {steps}, size: [32, 32], batch_size: 4, compile: none}}
output: {{path: unused, samples_per_shard: 4}}
cluster: {{device: cpu, error_budget: {error_budget}, workers: {{min: 1, max: 2}}}}
"""


class Log(Lines):
    """Remembers what workers log with what is said."""

    def update(self, snapshot: Snapshot) -> None:
        super().update(snapshot)
        self.lines += snapshot.log


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without slots, where the driver lives, and two nodes with one slot each."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = nodes.address
    yield nodes
    nodes.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("model"))


def write(folder: Path, model: str, prompts: list[str], *, steps: int, error_budget: int = 3) -> Path:
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(model=model, steps=steps, error_budget=error_budget))
    return path


def bytes_of(corpus: Path) -> dict[str, bytes]:
    files = [*corpus.glob("train/*.tar"), *corpus.glob("manifests/*.parquet")]
    return {str(path.relative_to(corpus)): path.read_bytes() for path in files}


def shards_done(corpus: Path) -> int:
    return len(list((corpus / "commits").glob("*.json")))


def actors(title: str) -> list[psutil.Process]:
    """Actor processes of the cluster that this process has started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if f"ray::{title}" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # gone meanwhile
            continue
    return found


def when(condition: Callable[[], bool], action: Callable[[], None]) -> threading.Thread:
    """Do something to the run, from beside it."""

    def watch() -> None:
        while not condition():
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_driver_worker_and_coordinator_are_killed_and_the_bytes_are_the_same(
    cluster: Any, model: str, tmp_path: Path
) -> None:
    """Of two sizes by turns, which share no batch: who draws does not matter, and what is drawn together is planned."""
    prompts = [f"a photo of a {animal} {i}" for i in range(12) for animal in ("cat", "dog", "lion", "wolf")]
    path = write(tmp_path, model, prompts, steps=25)
    rows = [{"prompt": prompt, "size": ("32x32", "40x32")[i % 2]} for i, prompt in enumerate(prompts)]
    (tmp_path / "sized.jsonl").write_text("\n".join(map(json.dumps, rows)))
    output, reference = tmp_path / "corpus", tmp_path / "reference"
    there = [f"prompts.source={tmp_path / 'sized.jsonl'}", f"output.path={output}"]
    local = run(load_config(path, ["cluster.backend=local", there[0], f"output.path={reference}"]), progress=Log())
    assert local.exit_code == 0, local.message

    command = [sys.executable, "-m", "pipeline.cli", "run", str(path), *there]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while shards_done(output) < 2:
        assert driver.poll() is None
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    left = shards_done(output)
    assert left < 12
    deadline = time.monotonic() + 10
    while actors("WorkerActor") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert actors("WorkerActor") == [], "the driver's actors die with it"

    progress = Log()
    watchers = [
        when(lambda: shards_done(output) >= left + 2, lambda: actors("CoordinatorActor")[0].kill()),
        when(lambda: shards_done(output) >= left + 4, lambda: actors("WorkerActor")[0].kill()),
    ]
    outcome = run(load_config(path, there), progress=progress)
    assert outcome.exit_code == 0, outcome.message
    for watcher in watchers:
        watcher.join(timeout=1)
        assert not watcher.is_alive(), "both kills took place"
    assert any("the coordinator is gone" in line for line in progress.lines)
    assert any("is gone (crash)" in line for line in progress.lines)
    assert bytes_of(output) == bytes_of(reference)
    assert verify(str(output)) == []
    kinds = [failure.kind for failure in failures(open_store(str(output)))]
    assert set(kinds) <= {"crash"}
    assert len(kinds) <= 1, "one kill, one shard charged"

    again = Log()
    assert run(load_config(path, there), progress=again).exit_code == 0
    assert again.snapshots == [], "a finished corpus needs no workers"


def test_prompts_that_raise_or_kill_are_left_out_and_their_shards_live(
    cluster: Any, model: str, tmp_path: Path
) -> None:
    prompts = [f"a photo of a dog {i}" for i in range(24)]
    prompts[7] += " KILL"  # the last of its shard: every probe before it survives, which keeps this test short
    prompts[17] += " RAISE"
    path = write(tmp_path, model, prompts, steps=3, error_budget=1)
    output = tmp_path / "corpus"
    progress = Log()
    outcome = run(load_config(path, [f"output.path={output}"]), progress=progress)
    assert outcome.exit_code == 1
    assert [line.split(":")[0] for line in outcome.failed] == ["sample 00000100003", "sample 00000400001"]
    records = committed(open_store(str(output)))
    assert {shard: record.counts["ok"] for shard, record in records.items()} == {0: 4, 1: 3, 2: 4, 3: 4, 4: 3, 5: 4}
    assert verify(str(output)) == []
    kinds = {(failure.shard, failure.kind) for failure in failures(open_store(str(output)))}
    assert kinds == {(1, "crash"), (1, "blamed"), (4, "error"), (4, "blamed")}


def test_a_node_that_joins_is_used_and_one_that_drains_is_left(cluster: Any, model: str, tmp_path: Path) -> None:
    import ray

    enough = tmp_path / "enough"  # until it exists, every shard takes a second: the drain must not come too late
    prompts = [f"a photo of a dog {i} SLOW:{enough}" for i in range(240)]
    config = load_config(write(tmp_path, model, prompts, steps=1), [f"output.path={tmp_path / 'corpus'}"])
    config.cluster.workers.max = None
    progress = Log()

    def wait_for(workers: int) -> None:
        while not progress.snapshots or progress.snapshots[-1].workers < workers:
            assert not outcome.done(), outcome.result()
            time.sleep(0.05)

    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(run, config, progress=progress)  # beside us: Ray adds nodes from the main thread only
        wait_for(1)
        node = cluster.add_node(num_cpus=1)
        wait_for(3)
        client = ray._raylet.GcsClient(address=cluster.address)
        deadline = int(time.time() + 600) * 1000
        accepted, why = client.drain_node(node.node_id, 2, "spot machine taken away", deadline)
        assert accepted, why
        while not outcome.done() and not any("has left: draining" in line for line in progress.lines):
            time.sleep(0.05)
        enough.touch()
        assert outcome.result().exit_code == 0
    cluster.remove_node(node)
    assert verify(str(tmp_path / "corpus")) == []
    assert list(failures(open_store(str(tmp_path / "corpus")))) == []
    assert any("has left: draining" in line for line in progress.lines), progress.lines


def test_a_machine_that_cannot_do_what_others_do_is_left_out(cluster: Any, model: str, tmp_path: Path) -> None:
    enough = tmp_path / "enough"
    prompts = [f"a photo of a dog {i} SLOW:{enough}" for i in range(160)]
    config = load_config(write(tmp_path, model, prompts, steps=1), [f"output.path={tmp_path / 'corpus'}"])
    config.cluster.workers.max = None
    progress = Log()

    def wait_for(condition: Callable[[], bool]) -> None:
        while not condition():
            assert not outcome.done(), outcome.result()
            time.sleep(0.05)

    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(run, config, progress=progress)
        wait_for(lambda: any(snapshot.workers > 0 for snapshot in progress.snapshots[-1:]))
        here = torch.backends.cpu.get_cpu_capability()
        other = "avx2" if here == "DEFAULT" else "default"  # what another CPU looks like
        node = cluster.add_node(num_cpus=1, env_vars={"ATEN_CPU_CAPABILITY": other})
        wait_for(lambda: any("is not used, while others work: " in line for line in progress.lines))
        enough.touch()
        assert outcome.result().exit_code == 0
    cluster.remove_node(node)
    (refusal,) = (line for line in progress.lines if "is not used" in line)
    assert "begun in another environment (cpu_capability: " in refusal, "and it is not tried again and again"
    assert verify(str(tmp_path / "corpus")) == []


def test_a_failure_that_cannot_be_written_down_ends_the_run(cluster: Any, model: str, tmp_path: Path) -> None:
    """Nobody waits for the report that it is in: it is heard all the same, and nobody waits for ever."""
    enough, failed = tmp_path / "enough", tmp_path / "corpus" / "failures"
    prompts = [f"a photo of a dog {i} SLOW:{enough}" for i in range(11)] + ["a photo of a dog RAISE"]
    path = write(tmp_path, model, prompts, steps=1)

    def block() -> None:
        failed.write_text("in the way")
        enough.touch()

    watcher = when(lambda: shards_done(tmp_path / "corpus") >= 1, block)
    with pytest.raises(StoreError, match="failures") as caught:
        run(load_config(path, [f"output.path={tmp_path / 'corpus'}"]), progress=Log())
    assert "\n" not in str(caught.value)
    watcher.join(timeout=1)
    failed.unlink()
    assert run(load_config(path, [f"output.path={tmp_path / 'corpus'}"]), progress=Log()).exit_code == 1
    assert [failure.kind for failure in failures(open_store(str(tmp_path / "corpus")))][-1] == "blamed"


def test_what_storage_says_to_a_coordinator_that_opens_is_no_death_of_it(cluster: Any, tmp_path: Path) -> None:
    import ray

    from pipeline.cluster.on_ray.actor import CoordinatorActor
    from pipeline.cluster.on_ray.joining import joined
    from pipeline.config.schema import Config
    from pipeline.errors import CorpusError
    from pipeline.prompts import Plan, open_source

    (tmp_path / "prompts.txt").write_text("a dog\n")
    config = Config()
    config.prompts.source, config.output.path = str(tmp_path / "prompts.txt"), str(tmp_path / "corpus")
    (tmp_path / "corpus" / "commits").mkdir(parents=True)
    (tmp_path / "corpus" / "commits" / "000000.json").write_text("{}")
    plan = Plan.build(config, open_source(config.prompts))
    with joined(print):
        actor = CoordinatorActor.remote(config, plan, {}, {}, os.getcwd())
        with pytest.raises(CorpusError, match=r"commits/000000.json: not a commit record"):
            ray.get(actor.snapshot.remote())
        ray.kill(actor)


def test_a_folder_that_workers_do_not_share_is_refused(cluster: Any, tmp_path: Path) -> None:
    from pipeline.cluster.records import delete_nonce, read_nonce, write_nonce
    from pipeline.config.schema import Config

    config = Config()
    config.output.path = str(tmp_path / "a")
    store = open_store(config.output.path)
    nonce = write_nonce(store)
    read_nonce(store, nonce)
    elsewhere = Config()
    elsewhere.output.path = str(tmp_path / "b")
    with pytest.raises(ConfigError, match=r"a worker on \S+ does not see what the driver wrote there"):
        read_nonce(open_store(elsewhere.output.path), nonce)
    delete_nonce(store, nonce)
    assert not list((tmp_path / "a").rglob("nonce-*"))


def test_a_worker_loads_its_model_once_whatever_it_is_called_for(cluster: Any, model: str, tmp_path: Path) -> None:
    path, notes = write(tmp_path, model, ["a photo of a cat", "a photo of a dog"], steps=1), tmp_path / "notes"
    step = f'erasure.recipe=[{{method: "tests.opened:Noting", options: {{file: {notes}}}}}]'
    audited = ["audit={detectors: [{detector: diorama}]}", "generation.size=[64, 64]"]  # the size that it judges
    config = load_config(path, [f"output.path={tmp_path / 'corpus'}", step, *audited])
    assert run(config, progress=Log()).exit_code == 0
    assert len(read_pairs(open_store(f"{tmp_path / 'corpus'}.evidence"))) == 2
    noted = [line.split() for line in notes.read_text().splitlines()]
    assert len({process for process, _ in noted}) == 1
    # It has opened the stores before: by them it was seen to share the driver's folder.
    assert sorted(what for _, what in noted) == ["detector", "digest", "model"]


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(cluster: Any, model: str, tmp_path: Path) -> None:
    output, enough = tmp_path / "corpus", tmp_path / "enough"  # until it exists, every shard takes a second
    path = write(tmp_path, model, [f"a photo of a dog {i} SLOW:{enough}" for i in range(160)], steps=1)
    command = [sys.executable, "-m", "pipeline.cli", "run", str(path), f"output.path={output}", "model.dtype=auto"]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while shards_done(output) < 2:
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGINT)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    assert "Traceback" not in err
    found = re.fullmatch(
        rf"stopped: (\d+) of 40 shards are committed in {output}; the same command goes on from there\n", out
    )
    assert found, out
    assert 2 <= int(found[1]) <= shards_done(output) < 40
    enough.touch()
    config = load_config(path, [f"output.path={output}", "model.dtype=auto"])
    assert run(config, progress=Log()).exit_code == 0
    assert verify(str(output)) == []


MEASURED = """
import json, sys
from dataclasses import replace
import ray
from pipeline.cluster.on_ray.joining import joined
from pipeline.cluster.on_ray.metrics import Metrics
from tests.cluster.test_progress import START

with joined(print):
    metrics = Metrics(sys.argv[1])
    metrics.update(replace(START, images=10, device_seconds=2.0))
    metrics.update(replace(START, images=16, device_seconds=3.5, done=4, leased=1, given_up={7: "no"}))
    metrics.update(replace(START, images=3, device_seconds=0.5, done=4, counts={"ok": 9}))  # a new coordinator
    nodes = [node for node in ray.nodes() if node["Alive"]]
    print(json.dumps([(node["NodeManagerAddress"], node["MetricsExportPort"]) for node in nodes]), flush=True)
    sys.stdin.readline()
"""


def test_metrics_reach_the_port_that_prometheus_reads(cluster: Any) -> None:
    output = f"s3://bucket/données/{os.getpid()}"
    expected = {
        "ray_lacuna_images_total": 19.0,
        "ray_lacuna_device_seconds_total": 4.0,
        "ray_lacuna_shards:done": 4.0,
        "ray_lacuna_shards:leased": 2.0,
        "ray_lacuna_shards:given_up": 0.0,
        "ray_lacuna_shards:pending": 4.0,
        "ray_lacuna_samples:ok": 9.0,
        "ray_lacuna_workers": 2.0,
    }
    # In a process of its own, as every run is: Ray adds what counters of one name count in runs of the same process.
    command = [sys.executable, "-c", MEASURED, output]
    driver = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    ports = json.loads(driver.stdout.readline())
    deadline = time.monotonic() + 120  # Ray reports every ten seconds
    found: dict[str, float] = {}
    while found != expected and time.monotonic() < deadline:
        time.sleep(1)
        found = {name: value for host, port in ports for name, value in scraped(host, port, output).items()}
    driver.communicate("\n")
    assert driver.returncode == 0
    assert found == expected


def scraped(host: str, port: int, output: str) -> dict[str, float]:
    """Our metrics of one run, by name and state, that a machine offers to Prometheus."""
    output = output.replace("é", "%C3%A9")  # a tag of Ray's holds ASCII alone
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:  # its agent is not up yet
        return {}
    found = {}
    for name, labels, value in re.findall(r"^(ray_lacuna_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        if f'output="{output}"' in labels:
            state = re.search(r'(?:state|status)="(\w+)"', labels)
            found[f"{name}:{state[1]}" if state else name] = float(value)
    return found
