"""What an index costs: seconds to the first sample, and memory, of one process and of its workers."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from jobs.loading.corpora import repeated
from jobs.loading.decoding import BATCH
from pipeline import Corpus, Loader
from pipeline.corpus import finish, layout


def indexes(folder: Path) -> dict[str, Any]:
    result = {}
    for rows, what in ((1_000_000, "first"), (10_000_000, "open")):
        path = repeated(folder / f"rows-{rows}", -(-rows // 1024))
        shutil.rmtree(f"{path}/{layout.INDEX}", ignore_errors=True)
        shutil.rmtree(folder / "home", ignore_errors=True)
        result[f"{rows}"] = {"unfinished": child(folder, what, path), "again": child(folder, what, path)}
        if what == "first":
            finish(path)
            shutil.rmtree(folder / "home")
            result[f"{rows}"]["finished"] = child(folder, what, path)
    return result


def child(folder: Path, what: str, path: str) -> Any:
    command = [sys.executable, sys.argv[0], "--child", what, "--corpus", path, "--folder", str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def seconds_to_first(path: str) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    batch = next(iter(Loader(Corpus(path), BATCH)))
    assert len(batch["caption"]) == BATCH
    return {
        "seconds_to_first_batch": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def seconds_to_open(path: str) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    rows = len(Corpus(path))
    return {
        "rows": rows,
        "seconds_to_open": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def memory(folder: Path) -> Any:
    return child(folder, "memory", repeated(folder / "rows-1000000", 977))


def proportional(path: str) -> dict[str, float]:
    """Return MB that the opened index adds to a process, and to one with 4 workers, all of its rows touched."""
    Corpus(path)  # the index is made
    empty_one, empty_five = sum(pss(0, None)), sum(pss(4, None))
    one, five = sum(pss(0, path)) - empty_one, sum(pss(4, path)) - empty_five
    return {"one_process_mb": round(one, 2), "with_4_workers_mb": round(five, 2), "ratio": round(five / one, 3)}


def pss(workers: int, path: str | None) -> list[float]:
    """Return the MB of a process forked for this, and of so many workers that it forks while it has the corpus open."""
    ready, go, answers, end = (os.pipe() for _ in range(4))
    if not (pid := os.fork()):
        corpus = Corpus(path) if path else None
        for _ in range(workers):
            if not os.fork():
                break
        if corpus:
            for array in (corpus.index.rows, corpus.index.blocks, corpus.index.shards):
                array.view(np.uint8)[::1024].sum()
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os.write(answers[1], f"{megabytes()} ".encode())
        os.read(end[0], 1)
        os._exit(0)
    found = b""
    while found.count(b".") < workers + 1:
        found += os.read(ready[0], 64)
    os.write(go[1], b"." * (workers + 1))
    found = b""
    while found.count(b" ") < workers + 1:
        found += os.read(answers[0], 4096)
    os.write(end[1], b"." * (workers + 1))
    os.waitpid(pid, 0)
    return [float(value) for value in found.split()]


def megabytes() -> float:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1]) / 1024  # type: ignore[index]


CHILDREN = {"first": seconds_to_first, "open": seconds_to_open, "memory": proportional}
