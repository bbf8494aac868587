"""What the coordinator costs with 10,000 workers and a million shards: time per call, memory, questions to storage.

One process plays all workers: each pulls leases and reports, and 1,000 of them are lost at once, as spot machines are.
Storage is played too, and takes 50 ms an answer; a call that waits for it would show. Half of the shards are committed
before. Time is played as well: a shard takes its worker 60 s.

    python jobs/bench_coordinator.py [--workers 10000] [--shards 1000000] [--lost 1000]
"""

import argparse
import gc
import heapq
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.cluster.coordinator import Coordinator  # noqa: E402
from pipeline.cluster.protocol import Counts, Failure, FailureKind, Lease, Report  # noqa: E402
from pipeline.evaluation.results import add_results_option, machine, write_result  # noqa: E402
from pipeline.prompts import PlannedShard  # noqa: E402

SECONDS = 60.0  # a shard
ANSWER = 0.05  # seconds of storage
SAMPLES = 1024  # a shard
Leased = tuple[str, tuple[tuple[int, str], ...]]


class Shards:
    """A plan without rows: to read these is the business of ``Ahead``, whose cost jobs/bench_plan.py tells."""

    def __init__(self, shards: int):
        self.shards = shards

    def shard(self, index: int) -> PlannedShard:
        return PlannedShard(index=index, samples=())


class World:
    """Workers, storage and time around one coordinator. ``calls`` are (method, seconds, of these at work)."""

    def __init__(self, workers: int, shards: int):
        self.now = 0.0
        self.storage: dict[int, Counts] = {}
        self.questions: list[int] = []  # shards of each
        self.failures = 0
        self.calls: list[tuple[str, float, float]] = []
        counts = {"ok": SAMPLES}
        begun = time.perf_counter()
        self.coordinator = Coordinator(
            Shards(shards),
            done=dict.fromkeys(range(shards // 2), counts),
            past=(),
            record=self._record,
            committed=self._committed,
            token="bench",
            error_budget=3,
            node_loss_budget=20,
            ahead=32,  # as in a run with so many samples a shard
            clock=lambda: self.now,
        )
        self.opened = time.perf_counter() - begun
        # (id, (shard, attempt) of each task): workers are other processes, and their leases no burden of this one
        self.running: dict[str, Leased] = {}
        self.prefetched: dict[str, Leased] = {}
        self.due = [(i * SECONDS / workers, f"{i:08x}/gpu0#{i}") for i in range(workers)]
        heapq.heapify(self.due)

    def _record(self, failure: Failure) -> None:
        time.sleep(ANSWER)
        self.failures += 1

    def _committed(self, shards: Collection[int]) -> Mapping[int, Counts]:
        time.sleep(ANSWER)
        self.questions.append(len(shards))
        return {shard: self.storage[shard] for shard in shards if shard in self.storage}

    def call(self, method: str, *args: object) -> object:
        begun, worked = time.perf_counter(), time.thread_time()
        answer = getattr(self.coordinator, method)(*args)
        self.calls.append((method, time.perf_counter() - begun, time.thread_time() - worked))
        return answer

    def work(self, until: float) -> None:
        """All workers work until then; the driver asks four times a second."""
        polled = self.now
        while self.due and self.due[0][0] < until:
            self.now, worker = heapq.heappop(self.due)
            while polled + 0.25 < self.now:
                polled += 0.25
                self.call("snapshot")
                self.call("tick")
            self._turn(worker)
        self.now = until

    def _turn(self, worker: str) -> None:
        """A worker has done the lease that it ran, if any; it begins the one in hand, and asks for one more."""
        _, tasks = self.running.pop(worker, ("", ()))
        reports = [self._commit(*task) for task in tasks]
        leased = self.prefetched.pop(worker, None) or self._pull(worker, reports, None)
        if leased is None:
            heapq.heappush(self.due, (self.now + 1.0, worker))
            return
        self.running[worker] = leased
        upcoming = self._pull(worker, reports, leased[0])
        if upcoming is not None:
            self.prefetched[worker] = upcoming
        heapq.heappush(self.due, (self.now + SECONDS * len(leased[1]), worker))

    def _pull(self, worker: str, reports: list[Report], running: str | None) -> Leased | None:
        answer = self.call("next", worker, reports, [] if running is None else [running], running)
        reports.clear()
        return (answer.id, answer.held().attempts) if isinstance(answer, Lease) else None

    def _commit(self, shard: int, attempt: str) -> Report:
        counts = self.storage[shard] = {"ok": SAMPLES}
        return Report(shard=shard, attempt=attempt, counts=counts, images=SAMPLES, seconds=SECONDS)

    def lose(self, number: int) -> float:
        """So many workers are lost in one moment, each with all but the first shard of its lease still to be drawn;
        return the seconds until the coordinator is in no doubt any more."""
        victims = list(self.running)[:: max(1, len(self.running) // number)][:number]
        self.due = [entry for entry in self.due if entry[1] not in set(victims)]
        heapq.heapify(self.due)
        begun = time.perf_counter()
        for worker in victims:
            self._commit(*self.running.pop(worker)[1][0])
            self.prefetched.pop(worker, None)
            self.call("lost", worker, FailureKind.node_loss, "taken away")
        while self.call("snapshot").in_doubt:  # type: ignore[attr-defined]
            time.sleep(0.05)
        return time.perf_counter() - begun

    def tell(self, what: str) -> dict[str, dict[str, float]]:
        """Print and return what the calls cost since the last time."""
        print(what)
        found = {}
        for method in ("next", "lost", "snapshot", "tick"):
            taken = [(passed, worked) for name, passed, worked in self.calls if name == method]
            if taken:
                passed, worked = (_figures(column) for column in zip(*taken, strict=True))
                print(f"  {method:<9}{len(taken):>7,} calls: {_said(passed)}; of work {_said(worked)}", flush=True)
                found[method] = {"calls": len(taken), **passed, **{f"work_{k}": v for k, v in worked.items()}}
        self.calls.clear()
        return found


def _figures(seconds: Sequence[float]) -> dict[str, float]:
    """In ms."""
    ordered = sorted(seconds)
    late = ordered[int(0.999 * (len(ordered) - 1))]
    return {"mean_ms": 1e3 * sum(ordered) / len(ordered), "late_ms": 1e3 * late, "longest_ms": 1e3 * ordered[-1]}


def _said(figures: dict[str, float]) -> str:
    return "mean {mean_ms:.2f}, 99.9 % below {late_ms:.2f}, longest {longest_ms:.2f} ms".format(**figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--lost", type=int, default=1_000, help="workers, at once (default 1,000)")
    add_results_option(parser)
    args = parser.parse_args()
    here = machine()
    world = World(args.workers, args.shards)
    gc.collect()
    print(f"{args.workers:,} workers, {args.shards:,} shards, half of them committed: opened in {world.opened:.1f} s")
    calls = {}
    world.work(SECONDS)
    calls["all come"] = world.tell("all workers come:")
    world.work(20 * SECONDS)
    shards = world.coordinator.snapshot().images / SAMPLES
    calls["twenty minutes of work"] = world.tell(f"twenty minutes of work, {shards:,.0f} shards:")
    seconds = world.lose(args.lost)
    calls["many are lost at once"] = world.tell(f"{args.lost:,} workers are lost at once:")
    print(f"  storage was asked {len(world.questions)} times, about {sum(world.questions):,} shards in all, and")
    print(
        f"  {world.failures:,} losses were written down; in doubt for {seconds:.1f} s, in which all others are answered"
    )
    world.work(world.now + 10 * SECONDS)
    calls["ten minutes of the others"] = world.tell("ten minutes of work of the others:")
    peak = _peak_megabytes()
    print(f"peak resident memory: {peak:.0f} MB, of which the played world takes its share")
    if args.results:
        figures = {
            "opened": world.opened, "calls": calls, "questions": len(world.questions), "asked": sum(world.questions),
            "losses": world.failures, "in_doubt": seconds, "peak_mb": peak,
        }  # fmt: skip
        asked = {"workers": args.workers, "shards": args.shards, "lost": args.lost}
        what = "What the coordinator costs: milliseconds a call, of which some waited for the processor"
        write_result(args.results, what=what, config=asked, figures=figures, environment=here)


def _peak_megabytes() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main()
