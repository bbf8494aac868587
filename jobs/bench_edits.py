"""How the edits grow with the number of concepts: seconds and peak memory of each, and whether growth is linear.

Every cell is solved in a process of its own on one thread: the built-in model in float32, N concepts with an alias, an
anchor and two neighbours each. Beyond the built-in world's objects concepts are any words: to an edit they cost the
same. The time is that of the solve alone (texts encoded, systems solved, tensors made); memory is what the process grew
by at most while solving. Exits with 1 where 50 concepts take more than twice 10/3 of what 15 take, in either.

    python jobs/bench_edits.py [--methods uce rece speed] [--concepts 1 5 15 50]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

COUNTS = (1, 5, 15, 50)
METHODS = ("uce", "rece", "speed")
SLACK = 2.0  # times linear: a shared machine's noise
FLOOR_MB = 50.0  # below it memory is the allocator's, not the method's


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--concepts", nargs="+", type=int, default=list(COUNTS))
    parser.add_argument("--solve", action="store_true", help=argparse.SUPPRESS)  # the measured process
    args = parser.parse_args()
    if args.solve:
        print(json.dumps(solve(args.methods[0], args.concepts[0])))
        return 0
    print("| method | concepts | seconds | MB |\n|---|---|---|---|")
    worse = []
    for method in args.methods:
        before: dict[str, float] = {}
        for count in args.concepts:
            command = [sys.executable, "-W", "ignore", __file__, "--solve", "--methods", method]
            output = subprocess.run([*command, "--concepts", str(count)], check=True, stdout=subprocess.PIPE, text=True)
            figures = json.loads(output.stdout.splitlines()[-1])
            print(f"| {method} | {count} | {figures['seconds']:.2f} | {figures['mb']:.0f} |", flush=True)
            if before:
                linear = SLACK * count / before["count"]
                slow = figures["seconds"] > linear * before["seconds"]
                if slow or figures["mb"] > max(FLOOR_MB, linear * before["mb"]):
                    worse.append(f"{method}: from {before['count']:.0f} to {count} concepts")
            before = {"count": count, **figures}
    print("growth worse than linear: " + (", ".join(worse) or "none"))
    return 1 if worse else 0


def solve(method: str, count: int) -> dict[str, float]:
    """Solve one edit in this process; return seconds of CPU and the growth of its peak memory in MB."""
    import torch

    from pipeline.config.schema import DType, ModelConfig, StepConfig
    from pipeline.diorama.lexicon import OBJECTS, UNKNOWN
    from pipeline.erasure.concept import Concept
    from pipeline.erasure.method import read_steps
    from pipeline.models.load import load_model

    torch.set_num_threads(1)
    model = load_model(ModelConfig(path="diorama", dtype=DType.float32), torch.device("cpu"))
    erased, neighbours = OBJECTS[:count], [*OBJECTS[count:], *UNKNOWN]
    assert len(erased) == count, f"at most {len(OBJECTS)} concepts"
    concepts = [
        Concept(
            name=word,
            aliases=(f"famous {word}",),
            anchor=neighbours[-1 - i % len(UNKNOWN)],
            preserve=(neighbours[2 * i % len(neighbours)], neighbours[(2 * i + 1) % len(neighbours)]),
        )
        for i, word in enumerate(erased)
    ]
    (step,) = read_steps([StepConfig(method=method)], concepts, model.family)
    peak_before = _reset_peak()
    started = time.process_time()
    step.build(model).edit()
    return {"seconds": time.process_time() - started, "mb": _memory("VmHWM") - peak_before}


def _reset_peak() -> float:
    """Make the peak what the process holds now; return that in MB. Linux alone keeps a peak that can be reset."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
