"""What judging a picture costs beside drawing it, on one GPU: the detectors `clip` and `open_vocabulary`, at full size,
and the quality columns (clip and embedding with one CLIP, hash and sharpness on a thread of the CPU, waited for).

    python jobs/gpu_check.py eyes [--batch 8] [--steps 30] [--rounds 5] [--dtype auto]

Nothing is downloaded: a CLIP ViT-L/14 (224 pixels), an OWLv2 base/16 (960 pixels) and SDXL's UNet and decoder are built
with random weights, which changes no figure, and the two detectors are loaded from folders as any checkpoint is. Each
looks at a batch of 1024x1024 pictures for 5 concepts of 2 words; the way from host memory to the device, resizing and
the texts' part of OWLv2 are in its time, as in a run. A picture's time is that of the UNet, `--steps` times with
guidance, and of the decoder; text encoders are left out, so that the shares are upper bounds. All are medians of
`--rounds`. It is made to take less than two minutes of a GPU.

`--device cpu --size tiny` runs the script itself anywhere.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from pipeline.audit.checkpoint import half_on_gpu
from pipeline.audit.detector import Detector, load_detector
from pipeline.audit.quality import Quality
from pipeline.concepts.term import Term
from pipeline.config.schema import DType
from pipeline.config.sections.audit import DetectorConfig, QualityConfig
from pipeline.evaluation.results import add_results_option, machine, write_result

WORDS = (("cat", "kitten"), ("rifle", "gun"), ("church", "chapel"), ("coffee", "espresso"), ("parachute", "canopy"))


@dataclass(frozen=True)
class Size:
    """Architectures: pixels of a picture; of the eyes pixels, patch, width, layers and heads of the part that looks;
    channels of SDXL's UNet, its layers of transformers and width of the text, and channels of its decoder."""

    pixels: int
    clip: tuple[int, int, int, int, int]
    owl: tuple[int, int, int, int, int]
    unet: tuple[int, ...]
    depths: tuple[int, ...]
    text: int
    vae: tuple[int, ...]


SIZES = {
    "full": Size(
        1024, (224, 14, 1024, 24, 16), (960, 16, 768, 12, 12), (320, 640, 1280), (1, 2, 10), 2048, (128, 256, 512, 512)
    ),
    "tiny": Size(64, (32, 8, 32, 2, 2), (32, 8, 32, 2, 2), (32, 32, 32), (1, 1, 1), 32, (32, 32, 32, 32)),
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="gpu_check.py eyes", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dtype", choices=[str(dtype) for dtype in DType], default="auto")
    parser.add_argument("--batch", type=int, default=8, help="pictures in a batch (default 8)")
    parser.add_argument("--steps", type=int, default=30, help="of sampling (default 30)")
    parser.add_argument("--rounds", type=int, default=5, help="that the medians are of (default 5)")
    add_results_option(parser)
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu-check: torch sees no CUDA device here; --device cpu --size tiny tries the script without one")

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    size, device, dtype = SIZES[args.size], torch.device(args.device), DType(args.dtype)
    here = machine(args.device)
    drawn = picture_seconds(size, device, half_on_gpu(dtype, device), args.batch, args.steps, args.rounds)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}: a picture of SDXL takes {drawn:.3f} s ({args.steps} steps)")
    print(f"{'what looks':<16}{'ms/picture':>12}{'of a picture':>14}")
    figures: dict[str, Any] = {"sdxl_seconds_per_picture": drawn}
    for what, make in (("clip", make_clip), ("open_vocabulary", make_owl), ("quality", make_clip)):
        with tempfile.TemporaryDirectory() as folder:
            make(size, Path(folder))
            options = {"model": folder, "dtype": args.dtype, "batch": args.batch}
            if what == "quality":
                seconds = measuring_seconds(options, args.device, size.pixels, args.batch, args.rounds)
            else:
                eye = load_detector(DetectorConfig(detector=what, options=options), args.device, "detectors")
                seconds = judging_seconds(eye, size.pixels, args.batch, args.rounds)
        figures[what] = {"ms_per_picture": 1000 * seconds, "share_of_a_picture": seconds / drawn}
        print(f"{what:<16}{1000 * seconds:>12.2f}{seconds / drawn:>14.2%}")
    if args.results:
        asked = {name: getattr(args, name) for name in ("size", "batch", "steps", "rounds", "dtype")}
        told = "What judging and measuring a picture costs beside drawing it with SDXL"
        write_result(args.results, what=told, config=asked, figures=figures, environment=here)


def judging_seconds(eye: Detector, pixels: int, batch: int, rounds: int) -> float:
    """Seconds that *eye* takes for a picture, of one batch."""
    images = np.random.default_rng(0).integers(0, 256, (batch, pixels, pixels, 3), np.uint8)
    terms = [Term(words[0], words) for words in WORDS]
    return median(lambda: eye.see(images, terms), rounds) / batch  # what it sees is in host memory when it returns


def measuring_seconds(options: dict[str, Any], device: str, pixels: int, batch: int, rounds: int) -> float:
    """Seconds that the quality columns take for a picture, of one batch, with *options* of what looks with CLIP."""
    looking = [QualityConfig(measure=name, options=options) for name in ("clip", "embedding")]
    quality = Quality.load([*looking, QualityConfig(measure="hash"), QualityConfig(measure="sharpness")], device)
    assert quality is not None
    images = np.random.default_rng(0).integers(0, 256, (2, batch, pixels, pixels, 3), np.uint8)
    batches = itertools.cycle(list(images))  # of the same batch as last time the encoder's answer is kept
    captions = [f"a photo of a {word[0]}" for word, _ in zip(itertools.cycle(WORDS), range(batch), strict=False)]
    with ThreadPoolExecutor(1) as threads:
        return median(lambda: quality.look(next(batches), captions, threads).result(), rounds) / batch


@torch.inference_mode()
def picture_seconds(size: Size, device: torch.device, dtype: torch.dtype, batch: int, steps: int, rounds: int) -> float:
    """Seconds that UNet and decoder take for a picture, of one batch with guidance."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    side = size.pixels // 8
    with torch.device(device):  # billions of random numbers: the GPU draws them at once
        unet = UNet2DConditionModel(
            sample_size=side, in_channels=4, out_channels=4, block_out_channels=size.unet, layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=size.depths, cross_attention_dim=size.text, use_linear_projection=True,
            attention_head_dim=tuple(max(1, channels // 64) for channels in size.unet),
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=size.vae, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4, sample_size=size.pixels,
        )  # fmt: skip
        latents = torch.randn(2 * batch, 4, side, side, dtype=dtype)
        text = torch.randn(2 * batch, 77, size.text, dtype=dtype)
        step = torch.tensor(500)
    for part in (unet, vae):
        part.to(dtype).requires_grad_(False).eval()
        if device.type == "cuda":  # as load_model does
            part.to(memory_format=torch.channels_last)

    def denoise() -> None:
        unet(latents, step, text)
        _wait(device)

    def decode() -> None:
        for latent in latents[:batch]:  # one by one, as a batch of them takes much memory
            vae.decode(latent[None])
        _wait(device)

    return (steps * median(denoise, rounds) + median(decode, rounds)) / batch


def median(run: Callable[[], object], rounds: int) -> float:
    """Seconds of *run*, the median of *rounds* after one that warms up."""
    taken = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def make_clip(size: Size, folder: Path) -> None:
    """Save a CLIP of random weights, its tokenizer and its processor."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    pixels, width = size.clip[0], size.clip[2]
    config = CLIPConfig(
        text_config=_text(width * 3 // 4 // 8 * 8), vision_config=_vision(size.clip), projection_dim=width
    )
    _save(folder, CLIPModel(config), CLIPImageProcessorPil(
        size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels}
    ))  # fmt: skip


def make_owl(size: Size, folder: Path) -> None:
    """Save an OWLv2 of random weights, its tokenizer and its processor."""
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessorPil

    pixels, text = size.owl[0], size.owl[2] * 2 // 3 // 8 * 8
    config = Owlv2Config(
        text_config={**_text(text), "max_position_embeddings": 16}, vision_config=_vision(size.owl), projection_dim=text
    )
    image = Owlv2ImageProcessorPil(size={"height": pixels, "width": pixels})
    _save(folder, Owlv2ForObjectDetection(config), image)


def _vision(eye: tuple[int, int, int, int, int]) -> dict[str, Any]:
    pixels, patch, width, layers, heads = eye
    return {
        "image_size": pixels, "patch_size": patch, "hidden_size": width, "intermediate_size": 4 * width,
        "num_hidden_layers": layers, "num_attention_heads": heads,
    }  # fmt: skip


def _text(width: int) -> dict[str, Any]:
    from jobs.gpu.models import byte_tokenizer

    words = byte_tokenizer()
    return {
        "vocab_size": len(words), "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 12,
        "num_attention_heads": 8, "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }  # fmt: skip


def _save(folder: Path, network: Any, image: Any) -> None:
    from jobs.gpu.models import byte_tokenizer

    for part in (network, image, byte_tokenizer()):
        part.save_pretrained(folder)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
