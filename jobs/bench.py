"""Four ways to the same pictures, side by side in one run: images/s, and their ratios with an interval.

    python jobs/bench.py [--images 96] [--steps 10] [--repeats 10] [--threads 2]

- ours: `pipeline.worker.Worker`, audit off: encode, denoise, decode, JPEG, tar, manifest, commit;
- ours on ray: the same worker as a run has it, leased to by the coordinator; timed from its first commit to its last;
- loop: a tuned diffusers loop: the same pipeline class, batch, dtype and scheduler, uint8 on the device, JPEG by the
  same encoder in as many threads as ours, tar written as it goes; no manifest, no commit;
- ceiling: denoise and decode only, from ready embeddings; nothing is encoded or written;
- ray data: the same pipeline in `map_batches` on one actor, `write_webdataset`; timed from its second batch to its last
  tar.

Each side of each repeat is a process of its own, with the same number of threads for the device's work, and draws one
batch before it is timed: in one process sides slow each other down, by what another has left in the memory. Ours, loop
and ceiling then take turns of a second (SIGSTOP, SIGCONT) until each has drawn all its pictures, so that a machine
whose speed drifts drifts under all of them alike. The Ray sides, which are many processes, follow alone. Each ratio is
taken within a repeat; the interval is a 95 % Student interval over the repeats. Of ours, the share of the time in which
the device's thread was denoising and decoding is printed too: what is left is all that we can cost beside the ceiling.
"""

import argparse
import io
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pipeline.config import load_config
from pipeline.config.schema import Backend, Config, ImageFormat
from pipeline.corpus.encode import encode_image
from pipeline.evaluation.results import add_results_option, machine, write_result
from pipeline.models.load import load_model
from pipeline.models.settle import settle
from pipeline.prompts import Plan, open_source
from pipeline.prompts.sample import Sample
from pipeline.statistics import T95, ratio

TURN = 1.0  # seconds
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=Path(__file__).with_name("bench.yaml"))
    parser.add_argument("--images", type=int, default=96, help="pictures that are timed, a multiple of the batch")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=10, choices=[n + 1 for n in T95])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without-ray", action="store_true", help="leave both that need it out")
    add_results_option(parser)
    parser.add_argument("--side", choices=[*IN_TURNS, *ALONE], help="time this one alone, here; print its seconds")
    args = parser.parse_args()

    config = load_config(args.config, [f"generation.steps={args.steps}", f"cluster.threads_per_worker={args.threads}"])
    config = settle(config, "cpu")
    batch = config.generation.batch_size
    if args.images < batch or args.images % batch:
        parser.error(f"--images is {args.images}; expected a multiple of {batch}, the batch size")
    config.prompts.limit = batch + args.images
    torch.set_num_threads(args.threads)
    if args.side in ALONE:
        print(ALONE[args.side](config))
        return
    if args.side:
        side = IN_TURNS[args.side](config)
        next(side)
        print("ready", flush=True)
        sys.stdin.readline()
        print(next(side, ""), flush=True)
        sys.stdin.readline()  # it tidies up when all are done
        side.close()
        return

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    here = machine()
    load = here["load"]
    print(f"{args.images} pictures, {args.steps} steps, {config.model.dtype}, batches of {batch}")
    print(f"{args.threads} threads of {os.cpu_count()} cores, torch {torch.__version__}, load {load:.1f} before")
    if load > 0.5:
        print("bench: this machine is at other work; its figures are worth little", file=sys.stderr)
    alone = [] if args.without_ray else list(ALONE)
    times: dict[str, list[float]] = {name: [] for name in (*IN_TURNS, *alone)}
    busy: list[float] = []
    for repeat in range(args.repeats):
        seconds, share = in_turns()
        seconds |= {name: timed_alone(name) for name in (alone if repeat % 2 == 0 else reversed(alone))}
        for name, value in seconds.items():
            times[name].append(value)
        busy.append(share)
        print(f"repeat {repeat + 1}: " + ", ".join(f"{n} {args.images / t[-1]:.2f}/s" for n, t in times.items()))
    print(table(times, args.images))
    print(f"ours: the device's thread is busy {statistics.median(busy):.2%} of the time (least {min(busy):.2%})")
    if args.results:
        asked = {"images": args.images, "steps": args.steps, "repeats": args.repeats, "threads": args.threads}
        asked |= {"batch": batch, "dtype": str(config.model.dtype), "size": config.generation.pixels}
        figures = {"sides": sides(times, args.images), "over": over(times), "seconds": times}
        figures["busy"] = {"median": statistics.median(busy), "least": min(busy)}
        what = "Images a second of several ways to the same pictures, side by side, and our ratio to each"
        write_result(args.results, what=what, config=asked, figures=figures, environment=here)


def in_turns() -> tuple[dict[str, float], float]:
    """Seconds of each side of ``IN_TURNS``, stops not counted; and the share that ours prints at its end."""
    with ExitStack() as stack:
        sides = {name: stack.enter_context(_Side(name)) for name in IN_TURNS}
        order = list(sides)
        while order:
            for name in order:
                sides[name].take_turn()
            order = [name for name in reversed(order) if sides[name].printed is None]
        return {name: side.seconds for name, side in sides.items()}, float(sides["ours"].printed or "nan")


class _Side:
    """A process that is ready to draw, and stands still but for its turns."""

    def __init__(self, name: str):
        self.name, self.seconds = name, 0.0
        self.printed: str | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            _command(name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._read()  # "ready"

    def __enter__(self) -> "_Side":
        return self

    def __exit__(self, *_: object) -> None:
        if self.printed is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def take_turn(self) -> None:
        """Let it draw for ``TURN`` seconds, or to its end."""
        started = time.perf_counter()
        if self.seconds:
            self._process.send_signal(signal.SIGCONT)
        else:
            print(file=self._process.stdin, flush=True)
        ended, _, _ = select.select([self._output], [], [], TURN)
        if not ended:
            self._process.send_signal(signal.SIGSTOP)
        self.seconds += time.perf_counter() - started
        if ended:
            self.printed = self._read()

    def _read(self) -> str:
        line = self._output.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            sys.exit(f"bench: {self.name} failed:\n{self._errors.read()}")
        return line


def timed_alone(side: str) -> float:
    """Seconds that a side measures by itself, in a process of its own."""
    done = subprocess.run(_command(side), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {side} failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def _command(side: str) -> list[str]:
    return [sys.executable, __file__, *sys.argv[1:], "--side", side]


def ours(config: Config) -> Generator[float | None]:
    """The worker, which turns all shards but the first into a committed corpus; last, the device's busy share."""
    from pipeline.session import Session, prepare
    from pipeline.worker import Worker

    with tempfile.TemporaryDirectory() as folder:
        config.output.path = f"{folder}/corpus"
        plan = Plan.build(config, open_source(config.prompts))
        session = Session(config, device="cpu")
        worker = Worker(session, prepare(session, plan.summary()))
        worker.process(plan.shard(0), "warm-up").result()
        yield None
        started = time.perf_counter()  # what it stands still counts here, in both parts of the share
        pending = [worker.process(plan.shard(i), f"bench-{i}") for i in range(1, plan.shards)]
        results = [result.result() for result in pending]
        seconds = time.perf_counter() - started
        assert all(result.won for result in results)
        yield sum(result.device_seconds for result in results) / seconds
        worker.close()


def ours_on_ray(config: Config) -> float:
    """Seconds of a whole run on Ray with one worker, from its first commit to its last."""
    from pipeline.run import run

    with tempfile.TemporaryDirectory() as folder:
        config.output.path, config.cluster.backend = f"{folder}/corpus", Backend.ray
        config.cluster.workers.max = 1
        outcome = run(config)
        assert outcome.exit_code == 0, outcome.message
        commits = [path.stat().st_mtime for path in Path(folder, "corpus", "commits").glob("*.json")]
    return max(commits) - min(commits)


def _samples(config: Config) -> list[Sample]:
    plan = Plan.build(config, open_source(config.prompts))
    return [sample for shard in range(plan.shards) for sample in plan.shard(shard).samples]


def _chunks(items: list[T], size: int) -> list[list[T]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def tuned_loop(config: Config) -> Generator[None]:
    """The loop that a careful user of diffusers writes: batches, no PIL, JPEG and tar off the device's thread."""
    pipe = load_model(config.model, torch.device("cpu")).pipe
    pipe.set_progress_bar_config(disable=True)
    warm_up, *batches = _chunks([sample.prompt for sample in _samples(config)], config.generation.batch_size)

    def write(batches: list[list[str]]) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            ThreadPoolExecutor(config.cluster.threads_per_worker) as encoders,
            ThreadPoolExecutor(1) as writer,
            tarfile.open(f"{folder}/0.tar", "w") as tar,
        ):
            writes = []
            for n, batch in enumerate(batches):
                generators = [torch.Generator().manual_seed(n * len(batch) + i) for i in range(len(batch))]
                images = _uint8(_denoise(pipe, config, generators, prompt=batch))
                for i, (image, prompt) in enumerate(zip(images, batch, strict=True)):
                    encoded = encoders.submit(encode_image, image, ImageFormat.jpg, 95)
                    writes.append(writer.submit(_write, tar, f"{n:05d}{i:03d}", encoded, prompt))
            for write in writes:
                write.result()

    write([warm_up])
    yield
    write(batches)


def ceiling(config: Config) -> Generator[None]:
    """Denoise and decode from ready embeddings: what the device alone allows."""
    pipe = load_model(config.model, torch.device("cpu")).pipe
    pipe.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        warm_up, *ready = [
            pipe.encode_prompt(batch, torch.device("cpu"), 1, True, [""] * len(batch))
            for batch in _chunks([sample.prompt for sample in _samples(config)], config.generation.batch_size)
        ]

    def draw(embeds: torch.Tensor, negative: torch.Tensor) -> None:
        generators = [torch.Generator().manual_seed(i) for i in range(len(embeds))]
        _denoise(pipe, config, generators, prompt_embeds=embeds, negative_prompt_embeds=negative)

    draw(*warm_up)
    yield
    for batch in ready:
        draw(*batch)


def _denoise(pipe: Any, config: Config, generators: list[torch.Generator], **prompt: Any) -> torch.Tensor:
    """Pictures in [0, 1], float ``(B, 3, H, W)``."""
    width, height = config.generation.pixels
    pictures: torch.Tensor = pipe(
        **prompt,
        num_inference_steps=config.generation.steps,
        guidance_scale=config.generation.guidance,
        width=width,
        height=height,
        generator=generators,
        output_type="pt",
    ).images
    return pictures


def _uint8(images: torch.Tensor) -> np.ndarray:
    return images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _write(tar: tarfile.TarFile, key: str, encoded: "Future[bytes]", prompt: str) -> None:
    for name, data in ((f"{key}.jpg", encoded.result()), (f"{key}.txt", prompt.encode())):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def ray_data(config: Config) -> float:
    """Ray Data: the same pipeline on one actor of `map_batches`, then `write_webdataset`."""
    import ray
    import ray.data

    threads = config.cluster.threads_per_worker
    # Of our own, whatever RAY_ADDRESS says; and one CPU more than the actor's, for the tasks that read and write.
    ray.init(address="local", num_cpus=threads + 1, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    class Generate:
        def __init__(self) -> None:
            torch.set_num_threads(threads)
            self.pipe = load_model(config.model, torch.device("cpu")).pipe
            self.pipe.set_progress_bar_config(disable=True)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            began = time.time()
            seeds = [int(key) for key in batch["__key__"]]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            images = _uint8(_denoise(self.pipe, config, generators, prompt=list(batch["txt"])))
            batch["jpg"] = [encode_image(image, ImageFormat.jpg, 95) for image in images]
            batch["txt"] = [prompt.encode() for prompt in batch["txt"]]
            batch["json"] = [json.dumps({"began": began}).encode()] * len(seeds)
            return batch

    rows = [{"__key__": f"{i:08d}", "txt": sample.prompt} for i, sample in enumerate(_samples(config))]
    with tempfile.TemporaryDirectory() as folder:
        ray.data.from_items(rows).map_batches(
            Generate,
            batch_size=config.generation.batch_size,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=threads,
        ).write_webdataset(folder, encoder=None)  # all is bytes; its own encoder takes no encoded picture
        tars = list(Path(folder).glob("*.tar"))
        ended = max(path.stat().st_mtime for path in tars)  # before Ray Data tidies up
        began = {
            _began(tar, member) for tar in map(tarfile.open, tars) for member in tar if member.name.endswith("json")
        }
    return ended - sorted(began)[1]


def _began(tar: tarfile.TarFile, member: tarfile.TarInfo) -> float:
    file = tar.extractfile(member)
    assert file is not None
    return float(json.load(file)["began"])


IN_TURNS: dict[str, Callable[[Config], Generator[float | None]]] = {
    "ours": ours,
    "loop": tuned_loop,
    "ceiling": ceiling,
}
RAY_DATA, ON_RAY = "ray data", "on ray"
ALONE: dict[str, Callable[[Config], float]] = {RAY_DATA: ray_data, ON_RAY: ours_on_ray}


def sides(times: dict[str, list[float]], images: int) -> dict[str, dict[str, float]]:
    """Side -> median, least and most of its images/s."""
    rates = {name: [images / s for s in seconds] for name, seconds in times.items()}
    return {name: {"median": statistics.median(r), "least": min(r), "most": max(r)} for name, r in rates.items()}


def over(times: dict[str, list[float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Of ours, without and with Ray: other side -> how many times as fast ours is, with the ends of its interval."""
    mine = [name for name in ("ours", ON_RAY) if name in times]
    return {one: {name: ratio(times[one], times[name]) for name in times if name != one} for one in mine}


def table(times: dict[str, list[float]], images: int) -> str:
    """Median and spread of each side, and ours over each other side, with a 95 % interval over the repeats."""
    ratios = over(times)
    lines = [f"{'side':<10}{'images/s':>10}{'min':>8}{'max':>8}   ours / side (95 %)"]
    for name, rate in sides(times, images).items():
        line = f"{name:<10}{rate['median']:>10.2f}{rate['least']:>8.2f}{rate['most']:>8.2f}"
        lines.append(f"{line}   {_said(ratios['ours'][name])}" if name in ratios["ours"] else line)
    lines += [f"ours on ray over {name}: {_said(found)}" for name, found in ratios.get(ON_RAY, {}).items()]
    return "\n".join(lines)


def _said(found: dict[str, float]) -> str:
    return "{ratio:.3f} ({low:.3f} to {high:.3f})".format(**found)


if __name__ == "__main__":
    main()
