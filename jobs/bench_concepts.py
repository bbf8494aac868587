"""How every method grows with the number of concepts: CPU seconds and peak memory, and whether growth is linear.

    python jobs/bench_concepts.py [--methods uce cease ...] [--concepts 1 5 15 50]

Every cell is measured in a process of its own on one thread: the built-in model in float32, N concepts with an alias,
an anchor and two neighbours each. Of an edit that is the solve: texts encoded, systems solved, tensors made. Of a
method that acts while sampling it is a batch of 16 pictures of 4 steps, every prompt of which names a concept, less the
same batch drawn with no method; what is made once for all batches (words encoded) is made before. Memory is what the
process grew by at most meanwhile, less what it grew by without the method.

Exits with 1 where a number of concepts costs more than ``SLACK`` times what the number before it costs, by proportion,
and more than a floor: ``FLOOR_MB``, and of seconds ``FLOOR`` of the batch with no method, below which machines are
noise. A method that refuses so many concepts says so in the table.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.concepts.concept import Concept
    from pipeline.erasure.steps import Step
    from pipeline.models.load import Model

from pipeline.evaluation.results import add_results_option, machine, write_result

COUNTS = (1, 5, 15, 50)
EDITS = ("uce", "rece", "speed")
SAMPLING = ("cease", "adavd", "sld", "negative_prompt", "safree", "semantic_surgery")
SLACK = 2.0  # times linear: a shared machine's noise
FLOOR_MB = 50.0
FLOOR = 0.03
IMAGES, STEPS, REPEATS = 16, 4, 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--methods", nargs="+", default=[*EDITS, *SAMPLING], choices=[*EDITS, *SAMPLING])
    parser.add_argument("--concepts", nargs="+", type=int, default=list(COUNTS))
    add_results_option(parser)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # the measured process
    args = parser.parse_args()
    if args.measure:
        (method,), (count,) = args.methods, args.concepts
        print(json.dumps(solve(method, count) if method in EDITS else draw(method, count)))
        return 0
    here = machine()
    cells: dict[str, dict[str, object]] = {}
    print("| method | concepts | seconds | of the batch | MB |\n|---|---|---|---|---|")
    worse = []
    for method in args.methods:
        before: dict[str, float] = {}
        for count in args.concepts:
            command = [sys.executable, "-W", "ignore", __file__, "--measure", "--methods", method]
            output = subprocess.run([*command, "--concepts", str(count)], check=True, stdout=subprocess.PIPE, text=True)
            figures = json.loads(output.stdout.splitlines()[-1])
            cells.setdefault(method, {})[str(count)] = figures
            if "refused" in figures:
                print(f"| {method} | {count} | {figures['refused']} | | |", flush=True)
                continue
            batch = figures.get("batch")
            share = ""
            if batch is not None:
                figures["share"] = figures["seconds"] / batch
                share = f"{figures['share']:+.1%}"
            print(f"| {method} | {count} | {figures['seconds']:.2f} | {share} | {figures['mb']:.0f} |", flush=True)
            if before:
                linear = SLACK * count / before["count"]
                floor = FLOOR * (batch or 0.0)
                slow = figures["seconds"] > max(floor, linear * before["seconds"])
                if slow or figures["mb"] > max(FLOOR_MB, linear * before["mb"]):
                    worse.append(f"{method}: from {before['count']:.0f} to {count} concepts")
            before = {"count": count, **figures}
    print("growth worse than linear: " + (", ".join(worse) or "none"))
    if args.results:
        asked = {"methods": args.methods, "concepts": args.concepts, "images": IMAGES, "steps": STEPS}
        what = "How methods grow with the number of concepts: seconds of CPU on one thread, and MB"
        figures = {"methods": cells, "worse than linear": worse}
        write_result(args.results, what=what, config=asked, figures=figures, environment=here)
    return 1 if worse else 0


def setting(method: str, count: int) -> "tuple[Model, list[Concept], Step]":
    """Return the model, *count* concepts and the checked step of one method, in this process."""
    import torch

    from pipeline.concepts.concept import Concept
    from pipeline.config.schema import DType, ModelConfig, StepConfig
    from pipeline.diorama.lexicon import OBJECTS, UNKNOWN
    from pipeline.erasure.steps import read_steps
    from pipeline.models.load import load_model

    torch.set_num_threads(1)
    model = load_model(ModelConfig(path="diorama", dtype=DType.float32), torch.device("cpu"))
    # Beyond the built-in world's objects concepts are any words: to a method they cost the same.
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
    return model, concepts, step


def solve(method: str, count: int) -> dict[str, float]:
    """Solve one edit; return seconds of CPU and the growth of the peak memory in MB."""
    model, _, step = setting(method, count)
    resident = _reset_peak()
    started = time.process_time()
    step.build(model).edit()
    return {"seconds": time.process_time() - started, "mb": _memory("VmHWM") - resident}


def draw(method: str, count: int) -> dict[str, float] | dict[str, str]:
    """Draw the batch with one method and with none, in turn; return what the method adds, by median, and the batch's
    seconds without it. A refusal is returned as such."""
    from pipeline.config.schema import Config, ModelConfig
    from pipeline.errors import ConfigError
    from pipeline.generation.engine import Engine
    from pipeline.prompts import unplanned

    try:
        model, concepts, step = setting(method, count)
        built = step.build(model)
    except ConfigError as error:
        return {"refused": str(error).splitlines()[0]}
    config = Config(model=ModelConfig(path="diorama"))
    config.generation.steps, config.generation.batch_size = STEPS, IMAGES
    samples = unplanned(((f"a {concepts[i % count].name} on the beach", i) for i in range(IMAGES)), 64, 64)
    seconds: dict[str, list[float]] = {"none": [], method: []}
    grown: dict[str, list[float]] = {"none": [], method: []}
    for repeat in range(REPEATS + 1):  # the first warms up
        for side, methods in (("none", []), (method, [built])):
            engine = Engine(config, model, methods)
            resident = _reset_peak()
            started = time.process_time()
            list(engine.generate(samples))
            if repeat:
                seconds[side].append(time.process_time() - started)
                grown[side].append(_memory("VmHWM") - resident)
    added = [with_it - without for with_it, without in zip(seconds[method], seconds["none"], strict=True)]
    return {
        "seconds": statistics.median(added),
        "batch": statistics.median(seconds["none"]),
        "mb": statistics.median(grown[method]) - statistics.median(grown["none"]),
    }


def _reset_peak() -> float:
    """Make the peak what the process holds now; return that in MB. Linux alone keeps a peak that can be reset."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
