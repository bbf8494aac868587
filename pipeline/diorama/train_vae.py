"""Trains the autoencoder: 64x64 pixels to 16x16 latents of unit scale and back. Unit of work: a batch of fresh scenes.

The loss is L1 on pixels and on their differences (edges are what a sticker is known by), with a light KL. Knows nothing
of captions.
"""

import time

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from pipeline.diorama.networks import autoencoder
from pipeline.diorama.optimizer import Average, optimizers, schedule, take_step
from pipeline.diorama.render import render
from pipeline.diorama.settings import Settings, logger, record
from pipeline.diorama.world import sample_scene

_KL_WEIGHT = 1e-3
_EDGE_WEIGHT = 1.0


def picture_batch(seeds: range) -> Tensor:
    """The scenes of *seeds* as float32 (B, 3, 64, 64) in -1..1, channels last in memory."""
    pixels = torch.from_numpy(np.stack([render(sample_scene(seed)) for seed in seeds]))
    return (pixels.float() / 127.5 - 1).permute(0, 3, 1, 2)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of values plus L1 of horizontal and vertical differences; scalar."""
    error = output - target
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + _EDGE_WEIGHT * edges


def train_vae(settings: Settings) -> None:
    """Train and save to ``<folder>/vae``, unless it is there already. Measures the scale of the latents."""
    target = settings.path / "vae"
    if target.exists():
        return
    torch.manual_seed(settings.seed)
    device, stage = settings.device, settings.vae
    vae = autoencoder().to(device, memory_format=torch.channels_last)
    parts = optimizers(vae, stage.lr)
    average = Average(vae, 0.998)
    steps = stage.samples // stage.batch_size
    started = time.monotonic()
    progress = tqdm(range(steps), desc="vae", mininterval=10)
    for step in progress:
        pixels = picture_batch(range(step * stage.batch_size, (step + 1) * stage.batch_size)).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=settings.bf16):
            posterior = vae.encode(pixels).latent_dist
            output = vae.decode(posterior.sample()).sample.float()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        reconstruction = reconstruction_loss(output, pixels)
        (reconstruction + _KL_WEIGHT * kl).backward()
        take_step(parts, stage.lr * schedule(step, steps, decay_share=0.4))
        average.update(vae)
        if step % 25 == 0:
            psnr = -10 * (output - pixels).square().mean().div(4).log10()
            progress.set_postfix(loss=f"{reconstruction:.4f}", kl=f"{kl:.3f}", psnr=f"{psnr:.2f}", refresh=False)
    vae.load_state_dict(average.weights)
    _measure_scale(vae, settings)
    vae.save_pretrained(target)
    minutes = round((time.monotonic() - started) / 60)
    record(settings, "autoencoder", {"pictures seen": settings.vae.samples, "minutes": minutes})


@torch.no_grad()
def _measure_scale(vae: AutoencoderKL, settings: Settings) -> None:
    """Set ``scaling_factor`` so that latents of 1,024 scenes have unit standard deviation."""
    batches = [picture_batch(range(i, i + 64)).to(settings.device) for i in range(0, 1024, 64)]
    means = torch.cat([vae.encode(batch).latent_dist.mean for batch in batches])
    vae.register_to_config(scaling_factor=float(1 / means.std()))
    recon = torch.cat([vae.decode(vae.encode(b).latent_dist.mean).sample.clamp(-1, 1) for b in batches[:4]])
    psnr = -10 * (recon - torch.cat(batches[:4])).square().mean().div(4).log10()
    logger.info("vae: psnr %.2f dB, latent means %s", psnr, means.mean(dim=(0, 2, 3)).tolist())
