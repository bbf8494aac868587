"""What CEASE costs: the time of a batch without it, with it and no sample concerned, and with every sample concerned.

"listens" is the second with attention scores, which no picture of it reaches.

    python jobs/bench_cease.py [--images 32] [--steps 10] [--repeats 10] [--threads 1]

Sides are interleaved (none, shut, open, none, ...), so that a machine whose speed drifts drifts under all of them, and
ratios are taken within a repeat; the interval is a 95 % Student interval over the repeats. Besides wall time the
process's own CPU time is taken, which other work on the machine disturbs less. Everything but loading counts: gates,
alternatives, encoding, sampling, decoding. Every repeat has new seeds and a gate that has seen none of the prompts'
words. Pictures of the sides without concerned samples must be the plain ones, bit by bit.
"""

import argparse
import statistics
import sys
import time

import numpy as np
import torch
from tqdm import tqdm

from pipeline.concepts.concept import Concept
from pipeline.config.schema import Config, DType, ModelConfig
from pipeline.erasure.cease.method import CEASE
from pipeline.erasure.cease.options import CEASEOptions
from pipeline.evaluation.results import add_results_option, machine, write_result
from pipeline.generation.engine import Engine
from pipeline.models.load import Model, load_model
from pipeline.prompts import unplanned
from pipeline.statistics import T95, ratio

CAT = Concept(name="cat", aliases=("kitten", "tabby"), anchor="dog", preserve=("tiger", "lion", "dog"))
PLACES = ("on the beach", "in a meadow", "in the desert", "in the snow", "in a city", "in a room", "at sunset")
SHUT = ("tiger", "bicycle", "castle", "guitar", "penguin", "banana")
OPEN = ("cat", "kitten", "tabby")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="diorama")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=32, help="pictures of one batch, and of one timing")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=10, choices=[n + 1 for n in T95])
    parser.add_argument("--threads", type=int, default=1)
    add_results_option(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    here = machine(args.device)
    model = load_model(ModelConfig(path=args.model, dtype=DType.float32), torch.device(args.device))
    config = Config(model=ModelConfig(path=args.model))
    config.generation.steps, config.generation.batch_size = args.steps, args.images
    sides = ("none", "shut", "listens", "open")
    wall: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    identical = True
    with tqdm(total=(args.repeats + 1) * len(sides)) as bar:
        for repeat in range(args.repeats + 1):  # the first warms up
            images = {}
            for side in sides:
                images[side], seconds, used = timed(model, config, side, repeat, args.images)
                if repeat:
                    wall[side].append(seconds)
                    cpu[side].append(used)
                bar.update()
            identical &= all((images["none"] == images[side]).all() for side in ("shut", "listens"))
    print(f"{args.images} pictures of {args.steps} steps, {args.model} in float32 on {args.device}, ratios to none")
    figures: dict[str, object] = {"identical": bool(identical)}
    for name, times in (("wall", wall), ("CPU", cpu)):
        for side in sides[1:]:
            found = ratio(times["none"], times[side])
            figures[f"{name} {side}"] = found
            print(
                f"{name:>5} {side:<7} {found['ratio']:.3f} ({found['low']:.3f} to {found['high']:.3f}); "
                f"{statistics.median(times[side]):.2f} s of {statistics.median(times['none']):.2f} s"
            )
    print(f"pictures with the gate shut: {'bit-identical' if identical else 'DIFFERENT'}")
    if args.results:
        asked = {name: getattr(args, name) for name in ("model", "device", "images", "steps", "repeats", "threads")}
        what = "What CEASE costs: time of a batch to that of the same batch without it"
        write_result(args.results, what=what, config=asked, figures=figures, environment=here)
    return 0 if identical else 1


def timed(model: Model, config: Config, side: str, repeat: int, images: int) -> tuple[np.ndarray, float, float]:
    """Pictures of one side, and the seconds and CPU seconds they took."""
    words = OPEN if side == "open" else SHUT
    prompts = [f"a {words[i % len(words)]} {PLACES[(i + repeat) % len(PLACES)]}" for i in range(images)]
    samples = unplanned(((prompt, repeat * images + i) for i, prompt in enumerate(prompts)), 64, 64)
    options = CEASEOptions(attention=0.37 if side == "listens" else 1.0)
    methods = [] if side == "none" else [CEASE(model, [CAT], options, label="cease")]
    engine = Engine(config, model, methods)
    started, used = time.perf_counter(), time.process_time()
    (batch,) = engine.generate(samples)
    return batch.images, time.perf_counter() - started, time.process_time() - used


if __name__ == "__main__":
    sys.exit(main())
