"""Trains the UNet on cached latents and frozen text embeddings. Unit of work: one batch.

Velocity prediction (Salimans & Ho 2022, arXiv 2202.00512): v = sqrt(abar) noise - sqrt(1 - abar) x. Noise levels are
drawn towards the middle, where a sticker's place is known and its details are decided. The learning rate is constant
until a linear decay at the end; the state before the decay is kept, so that a longer run can go on from there.
"""

import time
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.nn.functional import mse_loss
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from pipeline.diorama.latents import FIRST_SEED, cache_latents
from pipeline.diorama.networks import scheduler, unet
from pipeline.diorama.optimizer import Average, optimizers, schedule, take_step
from pipeline.diorama.settings import Settings, logger, record
from pipeline.diorama.train_text import tokenize
from pipeline.diorama.world import recaption, sample_scene

_UNIFORM_SHARE = 0.3  # of noise levels; the rest is logit-normal round the middle
_EXTRA_IMPLIED = 0.15  # scenes that imply what they show are 8 % of the world's, and were learnt last


def draw_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """*count* timesteps in 0..999, int64, denser in the middle."""
    middle = torch.sigmoid(torch.randn(count, generator=generator) + 0.6)
    even = torch.rand(count, generator=generator)
    share = torch.where(torch.rand(count, generator=generator) < _UNIFORM_SHARE, even, middle)
    return (share * 1000).long().clamp(max=999)


class Batches:
    """Batch *step* of a run, always the same: latents (B, 8, 16, 16) and captions, some of them empty."""

    def __init__(self, settings: Settings) -> None:
        self.latents = cache_latents(settings)
        self.size = settings.unet.batch_size
        self.settings = settings
        scenes = (sample_scene(FIRST_SEED + row) for row in range(len(self.latents)))
        self.implied = np.array([row for row, scene in enumerate(scenes) if scene.implied])

    def __call__(self, step: int) -> tuple[Tensor, list[str]]:
        rng = np.random.default_rng((self.settings.seed, step))
        rows = rng.integers(len(self.latents), size=self.size)
        if len(self.implied):
            extra = rng.random(self.size) < _EXTRA_IMPLIED
            rows[extra] = rng.choice(self.implied, size=extra.sum())
        captions = [
            recaption(sample_scene(FIRST_SEED + int(row)), int(rng.integers(1 << 40)))
            if rng.random() >= self.settings.caption_dropout
            else ""
            for row in rows
        ]
        return torch.from_numpy(self.latents[np.sort(rows)][np.argsort(np.argsort(rows))]).float(), captions


class Trainer:
    """The UNet, its optimizers and average, and how they are saved and found again."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.step, self.pictures, self.seconds = settings, 0, 0, 0.0
        self.total = settings.unet.samples // settings.unet.batch_size
        self.model: UNet2DConditionModel = unet().to(settings.device, memory_format=torch.channels_last)
        if settings.start_from:
            first = UNet2DConditionModel.from_pretrained(Path(settings.start_from) / "unet")
            self.model.load_state_dict(first.state_dict())
        if settings.device == "cpu":  # fused attention's backward in bf16 is slow there: 1.40 s a step against 1.06
            self.model.set_attn_processor(AttnProcessor())
        self.parts = optimizers(self.model, settings.unet.lr)
        self.average = Average(self.model, settings.ema_decay)
        self.checkpoint = settings.path / "unet.pt"
        if self.checkpoint.exists():
            self.load(self.checkpoint)

    def save(self, path: Path) -> None:
        """Write the whole state, never half of it."""
        state = {
            "step": self.step, "pictures": self.pictures, "seconds": self.seconds, "model": self.model.state_dict(),
            "average": self.average.weights, "updates": self.average.updates,
            "optimizers": [part.state_dict() for part in self.parts],
        }  # fmt: skip
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path, map_location=self.settings.device, weights_only=True)
        self.step, self.pictures, self.seconds = state["step"], state["pictures"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.average.weights, self.average.updates = state["average"], state["updates"]
        for part, saved in zip(self.parts, state["optimizers"], strict=True):
            part.load_state_dict(saved)
        logger.info("unet: going on from step %d of %d", self.step, self.total)

    def update(self, loss: Tensor) -> None:
        """One step of all optimizers, learning rate and average."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        take_step(self.parts, self.settings.unet.lr * schedule(self.step, self.total, decay_share=self.settings.decay))
        self.step += 1
        self.pictures += self.settings.unet.batch_size
        self.average.update(self.model)


def train_unet(settings: Settings) -> None:
    """Train (or go on training) and save the averaged UNet to ``<folder>/unet`` at every checkpoint."""
    tokenizer = CLIPTokenizer.from_pretrained(settings.path / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(settings.path / "text_encoder").to(settings.device)
    trainer, batches = Trainer(settings), Batches(settings)
    run = torch.compile(trainer.model) if settings.compile else trainer.model
    abar = scheduler().alphas_cumprod.to(settings.device)
    saved = begun = time.monotonic()
    before = trainer.seconds
    progress = tqdm(initial=trainer.step, total=trainer.total, desc="unet", mininterval=10)
    while trainer.step < trainer.total:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + trainer.step)
        latents, captions = batches(trainer.step)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = draw_timesteps(len(latents), generator).to(settings.device)
        clean, noise = latents.to(settings.device), noise.to(settings.device)
        with torch.no_grad():
            ids = torch.tensor(tokenize(tokenizer, captions), device=settings.device)
            context = encoder(ids).last_hidden_state
        signal = abar[timesteps].sqrt()[:, None, None, None]
        spread = (1 - abar[timesteps]).sqrt()[:, None, None, None]
        noisy = (signal * clean + spread * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast(settings.device, torch.bfloat16, enabled=settings.bf16):
            velocity = run(noisy, timesteps, context, return_dict=False)[0]
        loss = mse_loss(velocity.float(), signal * noise - spread * clean)
        trainer.update(loss)
        progress.update()
        trainer.seconds = before + time.monotonic() - begun
        if trainer.step % 20 == 0:
            _log(settings, trainer, float(loss.detach()))
        if trainer.step == int(trainer.total * (1 - settings.decay)):
            trainer.save(settings.path / "unet-before-decay.pt")
        if time.monotonic() - saved > 60 * settings.checkpoint_minutes or trainer.step == trainer.total:
            trainer.save(trainer.checkpoint)
            export(trainer, settings.path / "unet")
            _record(settings, trainer)
            saved = time.monotonic()


def export(trainer: Trainer, folder: Path) -> None:
    """Save the averaged weights as diffusers finds them."""
    averaged = unet()
    averaged.load_state_dict(trainer.average.weights)
    averaged.save_pretrained(folder)


def _record(settings: Settings, trainer: Trainer) -> None:
    facts = {
        "pictures seen": trainer.pictures,
        "steps": trainer.step,
        "batch size": settings.unet.batch_size,
        "minutes": round(trainer.seconds / 60),
        "data": f"{settings.latents} scenes, described anew each time they are seen",
    }
    record(settings, "UNet", facts)


def _log(settings: Settings, trainer: Trainer, loss: float) -> None:
    with (settings.path / "unet.csv").open("a") as log:
        log.write(f"{trainer.step},{trainer.pictures},{trainer.seconds:.0f},{loss:.4f}\n")
