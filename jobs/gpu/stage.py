"""One family in one process: what ``gpu_check.py`` starts. It reads what is known already, a line of JSON, and prints
each further figure, a line of JSON, as it comes. It ends where its input does: nothing holds a GPU for a call that was
cut.

    (cat KNOWN -) | python jobs/gpu_check.py stage FAMILY STAGE --device D --size SIZE --until UNIX_TIME --code FOLDER

A figure that cannot be had is ``{"failed": "why"}``, and the next one is tried.
"""

import argparse
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from jobs.gpu.figures import STAGES, asked
from jobs.gpu.models import KINDS, random_model
from jobs.gpu.plain import Plain
from jobs.gpu.sides import Again, Ours
from pipeline.models.dtype import fast_dtype
from pipeline.models.load import DTYPES

SIDES: dict[str, Any] = {"ours": Ours, "diffusers": Plain, "again": Again}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="gpu_check.py stage", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("family", choices=KINDS)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--device", required=True)
    parser.add_argument("--size", required=True)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--code", type=Path, required=True)
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args(arguments)
    known = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_input, daemon=True).start()
    kind, tiny, device = KINDS[args.family], args.size == "tiny", torch.device(args.device)
    model = random_model(kind, tiny, device, DTYPES[fast_dtype(args.device)])
    side = SIDES[args.stage](kind, tiny, model, known, args.code)
    for figure, step in side.steps():
        if figure in known or not asked([figure], args.eager):
            continue
        if time.time() >= args.until:
            return
        print(json.dumps({"figure": figure, "value": tried(step)}), flush=True)


def end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin, which a process that ends may want to close meanwhile
        pass
    os._exit(1)  # the thread that measures waits for nobody


def tried(step: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what *step* finds, or in a line why it finds nothing: what failed once is not tried in the next call."""
    started = time.perf_counter()
    try:
        found = dict(step())
    except Exception as error:
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {**found, "took": round(time.perf_counter() - started, 2)}
