"""What one GPU makes of the engine, beside plain diffusers: Stable Diffusion 2.1, SDXL and FLUX.1 at full size.

    python jobs/gpu_check.py [sd21] [sdxl] [flux] [eyes] [--json PATH] [--budget SECONDS] [--eager]
    python jobs/gpu_check.py eyes ...   # what detectors cost beside it, with options of its own: gpu_eyes.py

Needs a checkout, torch, diffusers, transformers, omegaconf, pyarrow and tqdm, and no install. The weights are random
and nothing is downloaded (gpu/models.py). Of each family, by default all three:

- images/s, from prompts to uint8 in host memory, of plain diffusers and of the engine, eager and compiled, and of the
  engine with an erasing method (cease, cease_joint) that no prompt or every prompt concerns; a warm-up batch left out;
- busy: seconds in which kernels ran (torch's profiler, one batch) over the seconds that a batch takes unprofiled;
- roofline: floating-point operations of a picture, counted as they are dispatched, times images/s, against what one
  large matrix product reaches on the same device in the same dtype just before;
- seconds of compiling, and until a second process is ready that loads what the first has compiled;
- whether samples that name no concept are bit-identical to the same batch without the method, and whether a second
  process draws the same bytes: eager, from what the first has compiled, and compiled anew.

Every figure is written to PATH as it comes, and skipped where PATH has it of this card, torch and commit. A call ends
within the budget, and by default within ten minutes: no figure is begun that would likely not be done by then
(gpu/expected.py), one that is not done is cut, and another call goes on. Exits with 1 where a figure is missing,
failed, or tells of bytes that differ. `--device cpu --size tiny` runs all of it anywhere, `--eager` what needs no
compiler.
"""

import argparse
import gc
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.gpu.child import Child, end_with_input
from jobs.gpu.expected import STARTING, expected
from jobs.gpu.figures import AHEAD, DETECTORS, EYES, STAGES, asked
from jobs.gpu.ledger import Ledger
from jobs.gpu.table import FAMILIES, faults, table
from pipeline.errors import LacunaError
from pipeline.evaluation.results import read_result, results_file

BUDGET = 580.0  # seconds: of ten minutes, without importing and the table
EYES_TAKE = 120.0  # seconds, at most
Turn = tuple[str, str]  # a family and a stage


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"{', '.join(FAMILIES)} (default: all), {EYES}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write each figure there; what it has is not redone")
    parser.add_argument("--budget", type=seconds, default=BUDGET, help=f"of the call, in seconds (default {BUDGET:g})")
    parser.add_argument("--eager", action="store_true", help="leave out what is compiled")
    args = parser.parse_args()
    end = time.time() + args.budget
    for family in args.families:
        if family not in (*FAMILIES, EYES):
            parser.error(f"{family} is no family; expected {', '.join(FAMILIES)} or {EYES}")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu-check: torch sees no CUDA device here; --device cpu --size tiny tries the script without one")
    try:
        ledger = Ledger.open(args.json and results_file(str(args.json)), args.device, args.size)
        families = list(dict.fromkeys(args.families)) or list(FAMILIES)
        with ledger.alone(), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            code = ledger.code(Path(scratch))
            turns = [(family, stage) for family in families if family != EYES for stage in STAGES]
            measure(turns, ledger, code, Path(scratch), end, args.eager)
            if EYES in families:
                see(ledger, Path(scratch), end)
    except LacunaError as error:
        sys.exit(f"gpu-check: {error}")
    print(table(ledger.key, ledger.figures, families))
    wrong = [fault for family in families for fault in faults(family, ledger.figures.get(family, {}), args.eager)]
    for fault in wrong:
        print(f"gpu-check: {fault}", file=sys.stderr)
    return 1 if wrong else 0


def seconds(text: str) -> float:
    """Return a number of seconds; of what is none argparse says so."""
    if not (value := float(text)) >= 0:
        raise ValueError
    return value


def measure(turns: list[Turn], ledger: Ledger, code: Path, scratch: Path, end: float, eager: bool) -> None:
    """Take the figures of *turns* that *ledger* does not have, as far as they can be had by the *end*."""

    def missing(family: str, stage: str) -> list[str]:
        return [figure for figure in asked(STAGES[stage], eager) if not ledger.has(family, figure)]

    def start(family: str, stage: str) -> Child:
        return Child(
            [family, stage, "--device", ledger.device, "--size", ledger.size, "--end", str(end),
             "--code", str(code / family), *["--eager"] * eager],
            scratch,
        )  # fmt: skip

    turns = [turn for turn in turns if missing(*turn)]
    started: dict[Turn, Child] = {}
    with ExitStack() as children:
        for turn, following in zip_longest(turns, turns[1:]):
            family, stage = turn
            wanted = missing(*turn)
            if time.time() + STARTING + expected(ledger.figures, family, wanted[0]) > end:
                continue
            print(f"{family}: {', '.join(wanted)}", file=sys.stderr, flush=True)
            child = started.get(turn) or children.enter_context(start(*turn))
            for found in child.work(ledger.figures, end):
                if "figure" in found:
                    ledger.put(family, found["figure"], found["value"])
                    print(f"{family}: {found['figure']}: {found['value']}", file=sys.stderr, flush=True)
                elif found["begun"] in AHEAD and following is not None:
                    started[following] = children.enter_context(start(*following))
            if child.process.returncode:
                why = "was cut" if time.time() >= end else f"ended with {child.process.returncode}"
                print(f"{family}: the process of {stage} {why}", file=sys.stderr, flush=True)


def see(ledger: Ledger, scratch: Path, end: float) -> None:
    """Take the figures of the detectors, which are those of one process, by way of a file in *scratch*."""
    if ledger.has(EYES, DETECTORS) or time.time() + EYES_TAKE > end:
        return
    file = scratch / "eyes.json"
    size = ["--size", ledger.size, "--batch", "2", "--steps", "2"] if ledger.size == "tiny" else []
    with Child([EYES, "--device", ledger.device, *size, "--results", str(file)], scratch) as child:
        for _ in child.work({}, end):
            pass
    if child.process.returncode == 0:
        ledger.put(EYES, DETECTORS, read_result(file)["figures"])


if __name__ == "__main__":
    if sys.argv[1:2] == [EYES] and not any(word.startswith("--json") for word in sys.argv):
        from jobs.gpu_eyes import main as eyes

        eyes(sys.argv[2:])
    elif sys.argv[1:3] == ["stage", EYES]:
        end_with_input()
        from jobs.gpu_eyes import main as eyes

        eyes(sys.argv[3:])
    elif sys.argv[1:2] == ["stage"]:
        from jobs.gpu.stage import main as stage

        stage(sys.argv[2:])
        gc.freeze()  # else it looks through all objects of torch once more before it ends, for seconds
    else:
        sys.exit(main())
