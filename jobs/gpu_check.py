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

Every figure is written to PATH as it comes, and skipped where PATH has it of this card, torch and commit. No further
one is begun after the budget, so that a call ends within ten minutes; another call goes on. Exits with 1 where a figure
is missing, failed, or tells of bytes that differ. `--device cpu --size tiny` runs all of it anywhere, `--eager` what
needs no compiler.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.gpu.figures import DETECTORS, EYES, FIGURE, STAGES, asked
from jobs.gpu.ledger import Ledger
from jobs.gpu.table import FAMILIES, faults, table
from pipeline.errors import LacunaError
from pipeline.evaluation.results import read_result, results_file

BUDGET = {"full": 480.0, "tiny": 540.0}  # by size: the longest figure takes two minutes, one minute on two cores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"{', '.join(FAMILIES)} (default: all), {EYES}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write each figure there; what it has is not redone")
    budgets = ", ".join(f"{size} {seconds:g}" for size, seconds in BUDGET.items())
    parser.add_argument("--budget", type=float, help=f"begin no figure after so many seconds (default: {budgets})")
    parser.add_argument("--eager", action="store_true", help="leave out what is compiled")
    args = parser.parse_args()
    until = time.time() + (BUDGET[args.size] if args.budget is None else args.budget)
    for family in args.families:
        if family not in (*FAMILIES, EYES):
            parser.error(f"{family} is no family; expected {', '.join(FAMILIES)} or {EYES}")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu-check: torch sees no CUDA device here; --device cpu --size tiny tries the script without one")
    try:
        ledger = Ledger.open(args.json and results_file(str(args.json)), args.device, args.size)
        families = list(dict.fromkeys(args.families)) or list(FAMILIES)
        with tempfile.TemporaryDirectory() as scratch:
            code = (args.json.with_suffix(".compiled") if args.json else Path(scratch)) / ledger.digest
            for family in families:
                if family == EYES:
                    see(ledger, Path(scratch) / "eyes.json", until)
                else:
                    measure(family, ledger, code / family, until, args.eager)
    except LacunaError as error:
        sys.exit(f"gpu-check: {error}")
    print(table(ledger.key, ledger.figures, families))
    wrong = [fault for family in families for fault in faults(family, ledger.figures.get(family, {}), args.eager)]
    for fault in wrong:
        print(f"gpu-check: {fault}", file=sys.stderr)
    return 1 if wrong else 0


def measure(family: str, ledger: Ledger, code: Path, until: float, eager: bool) -> None:
    """Take the figures of *family* that *ledger* does not have, as far as they can be begun until then."""
    for stage, figures in STAGES.items():
        missing = [figure for figure in asked(figures, eager) if not ledger.has(family, figure)]
        if not missing or time.time() >= until:
            continue
        print(f"{family}: {', '.join(missing)}", file=sys.stderr, flush=True)
        command = [
            sys.executable, __file__, "stage", family, stage, "--device", ledger.device, "--size", ledger.size,
            "--until", str(until), "--code", str(code), *["--eager"] * eager,
        ]  # fmt: skip
        known = json.dumps(ledger.figures.get(family, {}))
        with (
            tempfile.TemporaryDirectory() as cache,  # what torch has compiled here before is no matter
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
            ) as child,
        ):  # fmt: skip
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(f"{known}\n")
            child.stdin.flush()  # and stays open: where this process is gone, the child ends
            for line in child.stdout:
                if not line.startswith(FIGURE):  # some library's
                    print(line, end="", file=sys.stderr)
                    continue
                found = json.loads(line)
                ledger.put(family, found["figure"], found["value"])
                print(f"{family}: {found['figure']}: {found['value']}", file=sys.stderr, flush=True)
        if child.returncode:
            print(f"{family}: the process of {stage} ended with {child.returncode}", file=sys.stderr, flush=True)


def see(ledger: Ledger, file: Path, until: float) -> None:
    """Take the figures of the detectors, which are those of one process, by way of *file*."""
    if ledger.has(EYES, DETECTORS) or time.time() >= until:
        return
    size = ["--size", ledger.size, "--batch", "2", "--steps", "2"] if ledger.size == "tiny" else []
    command = [sys.executable, __file__, EYES, "--device", ledger.device, *size, "--results", str(file)]
    if subprocess.run(command, stdout=sys.stderr).returncode == 0:
        ledger.put(EYES, DETECTORS, read_result(file)["figures"])


if __name__ == "__main__":
    if sys.argv[1:2] == [EYES] and not any(word.startswith("--json") for word in sys.argv):
        from jobs.gpu_eyes import main as eyes

        eyes(sys.argv[2:])
    elif sys.argv[1:2] == ["stage"]:
        from jobs.gpu.stage import main as stage

        stage(sys.argv[2:])
    else:
        sys.exit(main())
