"""The latents of many scenes, encoded once: UNet training then runs the UNet and nothing else.

A scene costs 4 KB (16x16x8 in float16). Captions are not stored: each time a scene is seen it is described anew by
the grammar, so that pictures repeat but texts hardly do.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from pipeline.diorama.settings import Settings
from pipeline.diorama.train_vae import picture_batch

_CHUNK = 64
FIRST_SEED = 1_000_000  # beyond the pictures that trained the autoencoder


@torch.no_grad()
def cache_latents(settings: Settings) -> np.ndarray:
    """Latents of the scenes from FIRST_SEED on, float16 (N, 8, 16, 16) of unit scale, memory-mapped.

    The file grows with ``settings.latents`` and an interrupted run goes on where it stopped. It is tied to the
    autoencoder that made it: delete ``latents.npy`` with it.
    """
    path = settings.path / "latents.npy"
    done = len(np.load(path, mmap_mode="r")) if path.exists() else 0
    if done < settings.latents:
        vae = AutoencoderKL.from_pretrained(settings.path / "vae").to(
            settings.device, memory_format=torch.channels_last
        )
        pieces = [np.load(path)] if done else []
        for start in tqdm(range(done, settings.latents, _CHUNK), desc="latents", mininterval=10):
            seeds = range(FIRST_SEED + start, FIRST_SEED + min(start + _CHUNK, settings.latents))
            with torch.autocast(settings.device, torch.bfloat16, enabled=settings.bf16):
                mean = vae.encode(picture_batch(seeds).to(settings.device)).latent_dist.mean
            pieces.append((mean.float() * vae.config.scaling_factor).half().contiguous().cpu().numpy())
            if start // _CHUNK % 500 == 499:
                _save(path, pieces)
        _save(path, pieces)
    latents: np.ndarray = np.load(path, mmap_mode="r")
    return latents


def _save(path: Path, pieces: list[np.ndarray]) -> None:
    """Write all at once under another name first: a torn file would poison every later run."""
    pieces[:] = [np.concatenate(pieces)]
    temporary = path.with_suffix(".partial.npy")
    np.save(temporary, pieces[0])
    temporary.rename(path)
