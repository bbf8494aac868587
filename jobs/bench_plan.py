"""How long a plan over a large parquet source takes, and how much memory: the dry run's figures, minus the batch.

Makes a file of N prompts (kept for the next time), then plans it in a process of its own: the whole of `lacuna plan`
but for the measured batch, and one shuffled shard from the middle. Prints seconds and peak resident memory of that
process.

    python jobs/bench_plan.py [-n 10000000] [--folder out/bench-plan]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from pipeline.evaluation.results import add_results_option, machine, write_result

ANIMALS = ("cat", "dog", "tiger", "lion", "wolf", "fox", "owl", "horse", "cow", "pig")
PLACES = ("on a beach", "in a meadow", "in the snow", "in a city", "in a room", "at sunset", "in the desert")
ROW_GROUP = 1 << 20  # rows, pyarrow's default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-n", "--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path("out/bench-plan"))
    add_results_option(parser)
    parser.add_argument("--plan", action="store_true", help=argparse.SUPPRESS)  # the measured process
    args = parser.parse_args()
    source = args.folder / f"prompts-{args.rows}.parquet"
    if args.plan:
        print(json.dumps(plan(args.folder, source)))
        return
    here = machine()
    if not source.exists():
        make(source, args.rows)
    command = [sys.executable, __file__, "--plan", "-n", str(args.rows), "--folder", str(args.folder)]
    figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    figures["file_mb"] = source.stat().st_size / 1e6
    print(f"{args.rows:,} rows of parquet ({figures['file_mb']:.0f} MB)")
    print(f"plan: {figures['plan']:.2f} s, with imports and report {figures['total']:.2f} s")
    print(f"one shuffled shard of 1,024 samples from the middle: {figures['shard']:.2f} s")
    print(f"peak resident memory: {figures['peak_mb']:.0f} MB")
    if args.results:
        what = "A plan over a large parquet source: seconds, and the peak memory of its process"
        write_result(args.results, what=what, config={"rows": args.rows}, figures=figures, environment=here)


def make(source: Path, rows: int) -> None:
    """Write *rows* distinct prompts with two further columns, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("prompt", pa.string()), ("id", pa.int64()), ("origin", pa.string())])
    unfinished = source.with_suffix(".part")
    with pq.ParquetWriter(unfinished, schema) as writer:
        for start in range(0, rows, ROW_GROUP):
            ids = range(start, min(start + ROW_GROUP, rows))
            prompts = [f"a {ANIMALS[i % 10]} {PLACES[i % 7]}, photograph number {i}" for i in ids]
            origins = [f"album {i % 1000}" for i in ids]
            writer.write_table(pa.table([prompts, list(ids), origins], schema=schema), row_group_size=ROW_GROUP)
    unfinished.rename(source)


def plan(folder: Path, source: Path) -> dict[str, float]:
    """Plan *source* in this process; return seconds and the peak of its memory in MB."""
    started = time.perf_counter()
    from pipeline.config import load_config
    from pipeline.prompts import Plan, open_source
    from pipeline.prompts.report import plan_report

    file = folder / "config.yaml"
    file.write_text(
        f"model: {{path: diorama, dtype: float32}}\ngeneration: {{size: [64, 64], compile: none}}\n"
        f"erasure: {{concepts: [{{name: cat, aliases: [kitten]}}], recipe: [{{method: uce}}]}}\n"
        f"prompts: {{source: {source.name}, shuffle: true}}\n"
        f"output: {{path: {folder}/corpus}}\n"
    )
    config = load_config(file)
    before_plan = time.perf_counter()
    made = Plan.build(config, open_source(config.prompts))
    planned = time.perf_counter()
    print(plan_report(config, made).text(), file=sys.stderr)
    reported = time.perf_counter()
    made.shard(made.shards // 2)
    return {
        "plan": planned - before_plan,
        "total": reported - started,
        "shard": time.perf_counter() - reported,
        "peak_mb": _peak_megabytes(),
    }


def _peak_megabytes() -> float:
    """This process's own peak: ru_maxrss would carry over that of the parent, which made the file."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main()
