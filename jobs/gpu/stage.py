"""One family in one process: what ``gpu_check.py`` starts. It imports, waits for a line of JSON with the figures that
are known, by family, and prints each further figure, a line of JSON, as it comes. It ends where its input does.

    (cat KNOWN -) | python jobs/gpu_check.py stage FAMILY STAGE --device D --size SIZE --end UNIX_TIME --code FOLDER

Until it has that line it leaves the device alone: another process measures there. A figure that cannot be had is
``{"failed": "why"}``, and the next one is tried. None is begun that would likely not be done by the end.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from jobs.gpu.child import end_with_input
from jobs.gpu.expected import expected
from jobs.gpu.figures import STAGES, asked
from jobs.gpu.models import KINDS, random_model
from jobs.gpu.plain import Plain
from jobs.gpu.sides import Again, Ours
from pipeline.models.dtype import fast_dtype
from pipeline.models.load import DTYPES

CACHE = "TORCHINDUCTOR_CACHE_DIR"
SIDES: dict[str, Any] = {"ours": Ours, "diffusers": Plain, "again": Again}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="gpu_check.py stage", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("family", choices=KINDS)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--device", required=True)
    parser.add_argument("--size", required=True)
    parser.add_argument("--end", type=float, required=True)
    parser.add_argument("--code", type=Path, required=True)
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args(arguments)
    if args.device == "cpu" and not args.eager:
        vector_instructions()
    told = sys.stdin.readline()
    if not told:  # its turn never came
        return
    figures = json.loads(told)
    known = figures.setdefault(args.family, {})
    end_with_input()
    cache = tempfile.mkdtemp(dir=os.environ.get(CACHE))  # what another process has compiled is no matter
    os.environ[CACHE] = cache
    kind, tiny, device = KINDS[args.family], args.size == "tiny", torch.device(args.device)
    model = random_model(kind, tiny, device, DTYPES[fast_dtype(args.device)])
    side = SIDES[args.stage](kind, tiny, model, known, args.code)
    for figure, step in side.steps():
        if figure in known or not asked([figure], args.eager):
            continue
        if time.time() + expected(figures, args.family, figure) > args.end:
            return
        print(json.dumps({"begun": figure}), flush=True)
        known[figure] = tried(step)
        print(json.dumps({"figure": figure, "value": known[figure]}), flush=True)


def vector_instructions() -> None:
    """Have torch find out which vector instructions the CPU and the compiler have: seconds of g++ in each process, but
    where another one of the same call has left what it built."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    pick_vec_isa()


def tried(step: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what *step* finds, or in a line why it finds nothing: what failed once is not tried in the next call."""
    started = time.perf_counter()
    try:
        found = dict(step())
    except Exception as error:
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {**found, "took": round(time.perf_counter() - started, 2)}
