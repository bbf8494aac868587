"""What the engine makes of one GPU, at the full size of Stable Diffusion 2.1 (768x768, v-prediction), without Ray.

    python jobs/gpu_check.py [--batch 8] [--batches 3] [--steps 30] [--dtype auto]
    python jobs/gpu_check.py eyes ...   # what detectors cost beside it: gpu_eyes.py

The weights are random and nothing is downloaded, which changes no figure: the same layers of the same shapes run. Two
rows: no erasure, and CEASE with every sample concerned. Of each:

- images/s: of `Engine.generate`, from prompts to uint8 in host memory, a warm-up batch left out;
- busy: seconds in which kernels ran (torch's profiler, one batch) over the seconds that a batch takes unprofiled;
- roofline: floating-point operations of a batch, counted as they are dispatched, over its seconds, against what one
  large matrix product reaches on the same device in the same dtype just before.

`--device cpu --size tiny` runs the script itself anywhere; on a CPU the time on the calling thread counts as busy.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from pipeline.config.schema import ConceptConfig, Config, DType, ModelConfig, StepConfig
from pipeline.erasure.recipe import active_methods
from pipeline.evaluation.results import add_results_option, machine, write_result
from pipeline.generation.engine import Engine
from pipeline.models.dtype import fast_dtype
from pipeline.models.load import DTYPES, Model
from pipeline.models.sd import StableDiffusion
from pipeline.prompts import Sample, unplanned

PROMPTS = ("a photograph of a cat on a beach", "a cat beside a fishing boat", "two cats asleep on a red sofa")


@dataclass(frozen=True)
class Size:
    """An architecture: pixels of a side, channels of UNet and VAE, and width and depth of the text encoder."""

    pixels: int
    unet: tuple[int, ...]
    heads: tuple[int, ...]
    vae: tuple[int, ...]
    text: int
    text_layers: int
    text_heads: int
    product: int  # side of the matrices by which the device's reach is measured


SIZES = {
    "sd21": Size(768, (320, 640, 1280, 1280), (5, 10, 20, 20), (128, 256, 512, 512), 1024, 23, 16, 8192),
    "tiny": Size(64, (32, 64, 64, 64), (2, 4, 4, 4), (32, 32, 32, 32), 64, 2, 4, 512),
}


@dataclass(frozen=True)
class Figures:
    """Of one recipe."""

    images_per_second: float
    busy: float
    tflop_per_image: float
    roofline: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=SIZES, default="sd21")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dtype", choices=[str(dtype) for dtype in DType], default="auto")
    parser.add_argument("--batch", type=int, default=8, help="pictures in a batch (default 8)")
    parser.add_argument("--batches", type=int, default=3, help="batches that are timed (default 3)")
    parser.add_argument("--steps", type=int, default=30, help="of sampling (default 30)")
    add_results_option(parser)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu-check: torch sees no CUDA device here; --device cpu --size tiny tries the script without one")

    size, device = SIZES[args.size], torch.device(args.device)
    dtype = DTYPES[fast_dtype(args.device) if args.dtype == "auto" else DType(args.dtype)]
    here = machine(args.device)
    reach = matrix_product(size.product, device, dtype)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {dtype}: {reach / 1e12:.3g} TFLOP/s in a {size.product}² product")
    print(f"{args.size} at {size.pixels}x{size.pixels}, batches of {args.batch}, {args.steps} steps with guidance")
    print(f"{'recipe':<10}{'images/s':>10}{'busy':>8}{'TFLOP/image':>13}{'roofline':>10}")
    recipes: dict[str, dict[str, float]] = {}
    for recipe, steps in (("none", []), ("cease", [StepConfig(method="cease", options={"always_on": True})])):
        torch.manual_seed(0)
        config = configure(size, args.batch, args.steps, steps)
        model = random_model(size, device, dtype)
        found = measure(Engine(config, model, active_methods(config, model)), args.batches, reach)
        recipes[recipe] = asdict(found)
        print(
            f"{recipe:<10}{found.images_per_second:>10.2f}{found.busy:>8.0%}"
            f"{found.tflop_per_image:>13.3f}{found.roofline:>10.1%}"
        )
    figures: dict[str, Any] = {"recipes": recipes, "product_tflops": reach / 1e12}
    if args.device == "cuda":
        figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        print(f"peak memory {figures['peak_gib']:.1f} GiB")
    if args.results:
        asked = {name: getattr(args, name) for name in ("size", "batch", "batches", "steps")} | {"dtype": str(dtype)}
        what = "What the engine makes of one device, with and without CEASE on every sample"
        write_result(args.results, what=what, config=asked, figures=figures, environment=here)


def measure(engine: Engine, batches: int, reach: float) -> Figures:
    """Time *batches* batches, then count operations and busy seconds in one more each."""
    size = engine.config.generation.batch_size
    list(engine.generate(samples(engine.config, 1)))  # kernels are chosen and memory is taken
    started = time.perf_counter()
    on_device = sum(batch.device_seconds for batch in engine.generate(samples(engine.config, batches)))
    seconds = (time.perf_counter() - started) / batches
    with FlopCounterMode(display=False) as counter:
        list(engine.generate(samples(engine.config, 1)))
    busy = on_device / batches
    if engine.model.device.type == "cuda":
        busy = kernel_seconds(lambda: list(engine.generate(samples(engine.config, 1))))
    operations = counter.get_total_flops()
    return Figures(
        images_per_second=size / seconds,
        busy=busy / seconds,
        tflop_per_image=operations / size / 1e12,
        roofline=operations / seconds / reach,
    )


def kernel_seconds(run: Callable[[], Any]) -> float:
    """Seconds in which kernels ran on the GPU: they queue in one stream, so none runs beside another."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    return float(sum(event.self_device_time_total for event in profiler.key_averages())) / 1e6


def matrix_product(side: int, device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of two square matrices: the best of 5 rounds of 10."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):  # the first one warms up, and is never the best
        with timed(device) as seconds:
            for _ in range(10):
                a @ a
        best = min(best, seconds[0])
    return 10 * 2 * side**3 / best


@contextmanager
def timed(device: torch.device) -> Iterator[list[float]]:
    """Yield a list that holds, afterwards, the seconds that the device took."""
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - started)


def samples(config: Config, batches: int) -> list[Sample]:
    """Full batches of prompts that all name the concept."""
    width, height = config.generation.pixels
    asked = ((PROMPTS[i % len(PROMPTS)], i) for i in range(batches * config.generation.batch_size))
    return unplanned(asked, width, height)


def configure(size: Size, batch: int, steps: int, recipe: list[StepConfig]) -> Config:
    config = Config(model=ModelConfig(path="random"))
    config.generation.size, config.generation.batch_size = [size.pixels, size.pixels], batch
    config.generation.steps, config.generation.guidance = steps, 7.5
    config.erasure.concepts, config.erasure.recipe = [ConceptConfig(name="cat", anchor="dog")], recipe
    return config


def random_model(size: Size, device: torch.device, dtype: torch.dtype) -> Model:
    """Stable Diffusion 2.1 as its published configs have it, at *size*, with random weights."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()  # it is told nothing that it needs to know
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    words = byte_tokenizer()
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=size.text, intermediate_size=4 * size.text, num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_heads, projection_dim=512, hidden_act="gelu", max_position_embeddings=77,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    with torch.device(device):  # a billion random numbers: the GPU draws them at once
        encoder = CLIPTextModel(text)
        unet = UNet2DConditionModel(
            sample_size=size.pixels // 8, in_channels=4, out_channels=4, block_out_channels=size.unet,
            layers_per_block=2, down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, cross_attention_dim=size.text,
            attention_head_dim=size.heads, use_linear_projection=True,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=size.vae, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4, sample_size=size.pixels,
        )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=words, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).to(device, dtype)  # fmt: skip
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).eval()
    if device.type == "cuda":  # as load_model does
        for part in (pipe.unet, pipe.vae):
            part.to(memory_format=torch.channels_last)
    return Model(pipe, StableDiffusion(pipe, device), "random", device, dtype)


def byte_tokenizer() -> Any:
    """A CLIP tokenizer that has learned no pieces: every letter is a token, and all 77 places are used as ever."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    start, end = "<|startoftext|>", "<|endoftext|>"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), start, end]
    return CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], bos_token=start, eos_token=end, unk_token=end,
        pad_token=end, model_max_length=77,
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["eyes"]:
        from jobs.gpu_eyes import main as eyes

        eyes(sys.argv[2:])
    else:
        main()
