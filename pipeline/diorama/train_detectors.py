"""Trains a detector on fresh renders, spoilt as generated pictures are spoilt. Unit of work: one batch of scenes.

A third of each batch has gone through the autoencoder with noise on its latents (what a sampler's leftover errors look
like once decoded); the rest is blurred, noised, recoloured, shifted or JPEG-coded at random. Ground truth is exact:
which of the 8x8 cells a sticker covers, so the location maps are taught cell by cell.
"""

import io
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from pipeline.diorama.detector import DioramaDetector, presence
from pipeline.diorama.latents import FIRST_SEED, cache_latents
from pipeline.diorama.lexicon import BACKGROUNDS, OBJECTS
from pipeline.diorama.optimizer import Average, optimizers, schedule, take_step
from pipeline.diorama.render import render
from pipeline.diorama.settings import Settings, record
from pipeline.diorama.world import Scene, sample_scene

_CELL = 8
_SEEDS = {"a": 100_000_000, "b": 200_000_000}  # scenes of their own
_CALIBRATION_SEEDS = 300_000_000
_DECODED_SHARE = 1 / 3
_DECODED_POOL = 6_000
_EXTRA_SKETCHES = 0.15  # lines alone are the hardest to tell apart: without more of them recall there stayed at 0.93


def spoil(pixels: np.ndarray, rng: np.random.Generator, which: str) -> np.ndarray:
    """One uint8 picture (64, 64, 3) made worse at random; A and B are taught with different faults."""
    if rng.random() < 0.25:
        return pixels
    image = Image.fromarray(pixels)
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.9 if which == "a" else 0.7))))
    if which == "b" and rng.random() < 0.2:
        side = int(rng.integers(36, 60))
        image = image.resize((side, side), Image.Resampling.BILINEAR).resize((64, 64), Image.Resampling.BICUBIC)
    if rng.random() < 0.3:
        coded = io.BytesIO()
        image.save(coded, "JPEG", quality=int(rng.integers(35, 95)))
        image = Image.open(coded)
    values: np.ndarray = np.asarray(image, np.float32)
    if rng.random() < 0.4:
        values = values * rng.uniform(0.88, 1.12, size=3 if which == "a" else 1) + rng.uniform(-12, 12)
    if rng.random() < 0.4:
        values = values + rng.normal(0, rng.uniform(2, 14 if which == "a" else 10), size=values.shape)
    if rng.random() < 0.4:
        dx, dy = rng.integers(-2, 3, size=2)
        values = np.pad(values, ((2, 2), (2, 2), (0, 0)), mode="edge")[2 + dy : 66 + dy, 2 + dx : 66 + dx]
    return values.clip(0, 255).astype(np.uint8)


@torch.no_grad()
def decoded_pool(settings: Settings, which: str) -> np.ndarray:
    """Pictures of the first cached scenes decoded from slightly noisy latents, uint8 (N, 64, 64, 3); kept on disk."""
    path = settings.path / f"decoded-{which}.npy"
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(settings.path / "vae").to(
            settings.device, memory_format=torch.channels_last
        )
        offset = 0 if which == "a" else _DECODED_POOL
        latents = torch.from_numpy(cache_latents(settings)[offset : offset + _DECODED_POOL]).float()
        generator = torch.Generator().manual_seed(_SEEDS[which])
        pictures = []
        for piece in latents.split(64):
            noise = torch.randn(piece.shape, generator=generator)
            piece = piece + noise * 0.3 * torch.rand(len(piece), 1, 1, 1, generator=generator)
            with torch.autocast(settings.device, torch.bfloat16, enabled=settings.bf16):
                decoded = vae.decode(piece.to(settings.device) / vae.config.scaling_factor).sample
            pixels = ((decoded.float() + 1) * 127.5).clamp(0, 255).round().byte()
            pictures.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
        np.save(path, np.concatenate(pictures))
    pool: np.ndarray = np.load(path)
    return pool


def truth(scenes: list[Scene]) -> dict[str, Tensor]:
    """Exact targets: ``cells`` (B, 64, 8, 8) in 0..1, ``present`` (B, 64), ``style`` and ``background`` (B,)."""
    cells = torch.zeros(len(scenes), len(OBJECTS), 8, 8)
    for row, scene in enumerate(scenes):
        for name, (left, top, right, bottom) in zip(scene.objects, scene.boxes, strict=True):
            window = slice(top // _CELL, bottom // _CELL), slice(left // _CELL, right // _CELL)
            cells[row, OBJECTS.index(name), window[0], window[1]] = 1
    return {
        "cells": cells,
        "present": cells.amax(dim=(2, 3)),
        "style": torch.tensor([DioramaDetector.styles_known.index(scene.style) for scene in scenes]),
        "background": torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes]),
    }


def detector_loss(detector: DioramaDetector, pixels: Tensor, target: dict[str, Tensor], bf16: bool) -> Tensor:
    """Cells, presence, style and background together; *pixels* float (B, 3, 64, 64) in -1..1."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
        maps, style, background, _ = detector.read(pixels)
    maps = maps.float()
    return (
        64 * bce(maps, target["cells"])
        + 32 * bce(presence(maps), target["present"])
        + cross_entropy(style.float(), target["style"])
        + cross_entropy(background.float(), target["background"])
    )


class _Pictures:
    """Batches of spoilt pictures with their scenes; batch *step* is always the same."""

    def __init__(self, settings: Settings, which: str) -> None:
        self.which, self.pool = which, decoded_pool(settings, which)
        self.offset = 0 if which == "a" else _DECODED_POOL

    def __call__(self, first_seed: int, size: int) -> tuple[Tensor, list[Scene]]:
        rng = np.random.default_rng(first_seed)
        scenes, pictures = [], []
        for seed in range(first_seed, first_seed + size):
            if rng.random() < _DECODED_SHARE:
                row = int(rng.integers(len(self.pool)))
                scene, picture = sample_scene(FIRST_SEED + self.offset + row), self.pool[row]
            else:
                scene = sample_scene(seed, style="sketch" if rng.random() < _EXTRA_SKETCHES else None)
                picture = render(scene)
            scenes.append(scene)
            pictures.append(spoil(picture, rng, self.which))
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return pixels, scenes


def train_detector(settings: Settings, which: Literal["a", "b"]) -> None:
    """Train, calibrate and save to ``<folder>/detectors/<which>.safetensors`` in float16, unless it is there."""
    target = settings.path / "detectors" / f"{which}.safetensors"
    if target.exists():
        return
    stage = settings.detector_a if which == "a" else settings.detector_b
    torch.manual_seed(settings.seed + _SEEDS[which])
    detector = DioramaDetector(which).to(settings.device)
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs have no such form
    if settings.start_from:
        first = load_file(Path(settings.start_from) / "detectors" / f"{which}.safetensors")
        detector.load_state_dict({name: value.float() for name, value in first.items()})
        detector.temperatures.fill_(1)
    parts, average, pictures = optimizers(detector, stage.lr), Average(detector, 0.998), _Pictures(settings, which)
    steps, started = stage.samples // stage.batch_size, time.monotonic()
    progress = tqdm(range(steps), desc=f"detector {which}", mininterval=10)
    for step in progress:
        pixels, scenes = pictures(_SEEDS[which] + step * stage.batch_size, stage.batch_size)
        goal = {name: value.to(settings.device) for name, value in truth(scenes).items()}
        loss = detector_loss(detector, pixels.to(settings.device), goal, settings.bf16)
        loss.backward()
        take_step(parts, stage.lr * schedule(step, steps, decay_share=0.5))
        average.update(detector)
        if step % 25 == 0:
            progress.set_postfix(loss=f"{loss:.4f}", refresh=False)
    detector.load_state_dict(average.weights)
    detector.eval()
    calibrate(detector, *pictures(_CALIBRATION_SEEDS, 2_000))
    target.parent.mkdir(exist_ok=True)
    state = {n: v.half() if v.is_floating_point() else v for n, v in detector.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, target)
    minutes = round((time.monotonic() - started) / 60)
    record(settings, f"detector {which.upper()}", {"pictures seen": stage.samples, "minutes": minutes})


def calibrate(detector: DioramaDetector, pixels: Tensor, scenes: list[Scene]) -> None:
    """Set the temperatures that make the probabilities of spoilt fresh scenes most likely (Guo et al. 2017)."""
    device = detector.temperatures.device
    with torch.no_grad():
        read = [detector.read(piece.to(device)) for piece in pixels.split(256)]
    maps, style, background, _ = (torch.cat(part).float() for part in zip(*read, strict=True))
    target = {name: value.to(device) for name, value in truth(scenes).items()}
    scales = torch.logspace(-0.7, 0.7, 57, device=device)
    losses = torch.stack(
        [
            torch.stack(
                (
                    bce(presence(maps / scale), target["present"]),
                    cross_entropy(style / scale, target["style"]),
                    cross_entropy(background / scale, target["background"]),
                )
            )
            for scale in scales
        ]
    )
    detector.temperatures.copy_(scales[losses.argmin(dim=0)])
