"""``make chaos``: small corpora, generated under random SIGKILLs of every process that a run consists of.

First on a Ray of two nodes that the run joins, then on the Ray that it starts itself, whose own processes are killed
too. Run beside it: the same config, undisturbed and in one process. In the end tars and manifests must be
byte-identical, `verify` must find nothing, and no more may have been drawn twice than one shard per worker that a kill
hit. What was drawn is counted by the audit's detector, which every picture passes, killed or not. The two nodes have
one slot each, on this machine; a killed run is started again with the same command, a killed node is replaced.
"""

import argparse
import filecmp
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.audit.detector import Detector  # noqa: E402
from pipeline.evaluation.results import add_results_option, machine, write_result  # noqa: E402

WORKERS = 2
JOINED = "joined"  # a Ray of several nodes
OWN = "own"  # the Ray that the run starts
HIT = {  # where -> what is killed -> workers that one such kill hits
    JOINED: {"worker": 1, "node": 1, "coordinator": 0, "driver": WORKERS, "run": WORKERS},
    OWN: {
        "worker": 1,
        "coordinator": 0,
        "driver": WORKERS,
        "run": WORKERS,
        "gcs_server": WORKERS,
        "raylet": WORKERS,
        "dashboard agent": WORKERS,
        "runtime env agent": WORKERS,
        "dashboard": 0,
        "log monitor": 0,
        "monitor": 0,
    },
}
TITLES = {  # what is in the command line of such a process
    "worker": "ray::WorkerActor",
    "coordinator": "ray::CoordinatorActor",
    "driver": "pipeline.cluster.on_ray.driving",
    "gcs_server": "/gcs_server ",
    "raylet": "/raylet ",
    "dashboard agent": "ray::DashboardAgent",
    "runtime env agent": "ray::RuntimeEnvAgent",
    "dashboard": "/dashboard.py ",
    "log monitor": "/log_monitor.py ",
    "monitor": "/monitor.py ",
}
SAMPLES_PER_SHARD = 16
STALLED = 180.0  # seconds without a commit after which the test fails
DRAWN_LOG = "LACUNA_CHAOS_DRAWN"  # environment: the file that the detector appends to

CONFIG = """\
model: {{path: {model}, dtype: float32}}
erasure:
  concepts: [{{name: cat, anchor: dog}}]
  recipe: []
prompts: {{source: prompts.txt}}
generation: {{steps: {steps}, size: [32, 32], batch_size: 4, compile: none}}
audit: {{detectors: [{{detector: "jobs.chaos:Counter"}}], policy: keep}}
output: {{path: unused, samples_per_shard: {samples_per_shard}}}
cluster: {{device: cpu, error_budget: 10, workers: {{min: 1, max: {workers}}}}}
"""


class Counter(Detector):
    """Sees nothing, and writes down how many pictures it was shown."""

    def __init__(self, device: str):
        self._log = os.environ.get(DRAWN_LOG, os.devnull)

    def knows(self, term: str) -> bool:
        return True

    def threshold(self, term: str) -> float:
        return 0.5

    def score(self, images: np.ndarray, terms: Sequence[str]) -> np.ndarray:
        with open(self._log, "a") as log:
            log.write(f"{len(images)}\n")  # one small append: whole or not at all
        return np.zeros((len(images), len(terms)), dtype=np.float32)


@dataclass(frozen=True)
class Kill:
    """One line of the table."""

    number: int
    kind: str
    seconds: float  # since the beginning
    done: int  # shards committed by then
    back: float  # seconds until the next commit


class Machines:
    """Ray nodes on this machine: a head without slots, where the driver lives, and ``WORKERS`` with one slot each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address = self._cluster.address
        self._nodes: list[Any] = [self._cluster.add_node(num_cpus=1) for _ in range(WORKERS)]

    def kill_node(self, rng: random.Random) -> None:
        """Kill a node's processes and put another in its place."""
        node = self._nodes.pop(rng.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def close(self) -> None:
        self._cluster.shutdown()


class Run:
    """The command under test, started again whenever it was killed."""

    def __init__(self, folder: Path, output: Path, environment: dict[str, str]):
        self._command = [sys.executable, "-m", "pipeline.cli", "run", str(folder / "chaos.yaml")]
        self._command += [f"output.path={output}"]
        self._environment, self._log = environment, folder / f"{output.name}.log"
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)

    def revive(self) -> int | None:
        """Start again what was killed; return the exit code of what ended by itself."""
        code = self.process.poll()
        if code == -signal.SIGKILL:
            self.process = self._start()
            return None
        return code

    def tail(self) -> str:
        return "\n".join(self._log.read_text().splitlines()[-30:])


def done(output: Path) -> int:
    """Shards that are committed."""
    commits = output / "commits"
    return len(list(commits.glob("*.json"))) if commits.exists() else 0


def processes(kind: str) -> list[psutil.Process]:
    """The processes of one kind among those that this one has started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if TITLES[kind] in f"{' '.join(child.cmdline())} " and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.Error:
            continue  # gone meanwhile
    return found


def strike(kind: str, machines: Machines | None, run: Run, rng: random.Random) -> bool:
    """Kill one of that kind; False where none was there to kill."""
    if kind == "run":
        if run.process.poll() is not None:
            return False
        run.process.kill()
        run.process.wait()
        return True
    if kind == "node":
        assert machines is not None
        machines.kill_node(rng)
        return True
    victims = processes(kind)
    if not victims:
        return False
    rng.choice(victims).kill()
    return True


def wait_for(shards: int, run: Run, output: Path) -> float:
    """Wait until more than so many shards are committed; return the seconds it took."""
    began = time.monotonic()
    while done(output) < shards:
        code = run.revive()
        if code is not None and done(output) < shards:
            raise SystemExit(f"chaos: the run ended by itself with {code}:\n{run.tail()}")
        if time.monotonic() - began > STALLED:
            raise SystemExit(f"chaos: no shard committed for {STALLED:g} s:\n{run.tail()}")
        time.sleep(0.1)
    return time.monotonic() - began


def torment(
    run: Run, machines: Machines | None, output: Path, shards: int, kinds: Sequence[str], rng: random.Random
) -> Iterator[Kill]:
    """Kill one of each of *kinds*, in this order, at random moments, each after some progress since the last."""
    kills = len(kinds)
    began = time.monotonic()
    for number, kind in enumerate(kinds):
        wait_for(max(1, number * shards // (kills + 1)), run, output)
        time.sleep(rng.uniform(0.0, 2.0))
        while done(output) == shards or not strike(kind, machines, run, rng):
            if done(output) == shards:  # a kill of what has nothing left to do would prove nothing
                raise SystemExit(f"chaos: done before kill {number + 1} of {kills}; take more --shards or --steps")
            time.sleep(0.2)
            run.revive()
        before, seconds = done(output), time.monotonic() - began
        back = wait_for(min(before + 1, shards), run, output)
        yield Kill(number + 1, kind, seconds, before, back)


def differences(reference: Path, output: Path) -> list[str]:
    """Tars and manifests that are missing, too many, or not the same bytes."""
    problems = []
    for folder in ("train", "manifests"):
        names = {p.name for root in (reference, output) for p in (root / folder).glob("*.*") if p.suffix != ".json"}
        _, unequal, missing = filecmp.cmpfiles(reference / folder, output / folder, sorted(names), shallow=False)
        problems += [f"{folder}/{name}: differs" for name in unequal]
        problems += [f"{folder}/{name}: only in one of the two" for name in missing]
    return problems


def prepare(folder: Path, shards: int, steps: int) -> None:
    """A tiny model with random weights, prompts and a config."""
    from tests import tiny

    animals = ("cat", "dog", "tiger", "lion", "wolf")
    places = ("on the beach", "in the snow", "near a tree", "by the house")
    prompts = [f"a photo of a {animals[i % 5]} {places[i // 5 % 4]}" for i in range(shards * SAMPLES_PER_SHARD)]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    model = tiny.save(folder)
    text = CONFIG.format(model=model, steps=steps, samples_per_shard=SAMPLES_PER_SHARD, workers=WORKERS)
    (folder / "chaos.yaml").write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="kills of each kind (default 2)")
    parser.add_argument("--ray", choices=[JOINED, OWN], help="only there (default: first joined, then own)")
    parser.add_argument("--kinds", nargs="+", help="only these, such as raylet (default: all, in random order)")
    parser.add_argument("--shards", type=int, default=96, help="of 16 pictures each (default 96)")
    parser.add_argument("--steps", type=int, default=25, help="of sampling: the work in a shard (default 25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder, removed at the end)")
    add_results_option(parser)
    args = parser.parse_args()
    here = machine()
    with tempfile.TemporaryDirectory(prefix="lacuna-chaos-") as scratch:
        folder = (args.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        figures = chaos(folder, args)
    print(f"chaos: {figures['problems']} problems")
    if args.results:
        asked = {name: getattr(args, name) for name in ("rounds", "shards", "steps", "seed")}
        what = "SIGKILLs of every process that a run consists of, then the same bytes"
        write_result(args.results, what=what, config=asked, figures=figures, environment=here)
    return 1 if figures["problems"] else 0


def chaos(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return sums, and ``on``: where -> what ``act`` found."""
    began = time.monotonic()
    prepare(folder, args.shards, args.steps)
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    os.environ.update(
        {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    )
    command = [sys.executable, "-m", "pipeline.cli", "run", str(folder / "chaos.yaml"), "cluster.backend=local"]
    subprocess.run([*command, f"output.path={folder / 'reference'}"], cwd=ROOT, check=True)
    print(f"chaos: {args.shards} shards undisturbed in {time.monotonic() - began:.0f} s", flush=True)
    found: dict[str, dict[str, Any]] = {}
    for where in [args.ray] if args.ray else [JOINED, OWN]:
        rng = random.Random(args.seed)
        kinds = [kind for kind in args.kinds or HIT[where] for _ in range(args.rounds)]
        rng.shuffle(kinds)
        found[where] = act(folder, where, args.shards, kinds, rng)
    sums = {key: sum(act[key] for act in found.values()) for key in ("pictures", "drawn_twice")}
    lists = {key: sum(len(act[key]) for act in found.values()) for key in ("kills", "problems")}
    return {**sums, **lists, "on": found}


def act(folder: Path, where: str, shards: int, kinds: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """One corpus, tormented; return what it cost, and what is wrong with it."""
    from pipeline.corpus import verify

    began = time.monotonic()
    output, drawn = folder / where, folder / f"{where}-drawn"
    os.environ[DRAWN_LOG] = str(drawn)  # nodes and workers inherit it
    machines = Machines() if where == JOINED else None
    run = Run(folder, output, {**os.environ, "RAY_ADDRESS": machines.address if machines else "local"})
    table = []
    try:
        print(f"chaos: {len(kinds)} kills on {where} Ray", flush=True)
        print(f"{'kill':>4} {'what':<18} {'at s':>6} {'shards':>7} {'next commit after s':>20}")
        for kill in torment(run, machines, output, shards, kinds, rng):
            table.append(kill)
            print(
                f"{kill.number:>4} {kill.kind:<18} {kill.seconds:>6.0f} {kill.done:>7} {kill.back:>20.1f}", flush=True
            )
        while (code := run.revive()) is None:
            wait_for(min(done(output) + 1, shards), run, output)
            time.sleep(0.2)
    finally:
        run.process.kill()
        if machines is not None:
            machines.close()

    problems = [] if code == 0 else [f"the run ended with {code}:\n{run.tail()}"]
    problems += differences(folder / "reference", output)
    problems += verify(str(output))
    planned = shards * SAMPLES_PER_SHARD
    total = sum(int(line) for line in drawn.read_text().split())
    allowed = SAMPLES_PER_SHARD * sum(HIT[where][kill.kind] for kill in table)
    if total - planned > allowed:
        problems.append(f"{total - planned} pictures were drawn twice; allowed: {allowed}")
    for problem in problems:
        print(f"chaos: {problem}")
    print(
        f"chaos: {len(table)} kills on {where} Ray, {shards} shards, {planned} pictures; {total - planned} drawn twice "
        f"(allowed {allowed}: one shard per worker hit); {len(problems)} problems; {time.monotonic() - began:.0f} s"
    )
    return {
        "kills": [asdict(kill) for kill in table], "shards": shards, "pictures": planned,
        "drawn_twice": total - planned, "allowed": allowed, "problems": problems, "seconds": time.monotonic() - began,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
