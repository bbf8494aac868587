"""Planned samples in, batches of finished pixels out. Knows nothing of files, audits or shards.

Batches are consecutive samples, and the last one is padded to full size: what a picture is computed together with is
part of the plan, because a batch's shape can change its bytes.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config.schema import Config
from pipeline.erasure.method import Method
from pipeline.erasure.recipe import CompiledRecipe, active_methods
from pipeline.generation.sampler import Sampler
from pipeline.generation.text import PADDING, Pair, encode_texts
from pipeline.models.load import Model, load_model
from pipeline.prompts import Sample, batches

BLANK = 2  # levels of 255: a picture that spans no more in any channel shows nothing
EXCLUDED = "excluded"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``images`` uint8 ``(B, H, W, 3)``; ``faults[i]`` is "nan", "blank", "excluded" or None; ``gates`` float32
    ``(B,)`` by method and concept. Padding is not in it."""

    samples: tuple[Sample, ...]
    images: np.ndarray
    faults: list[str | None]
    gates: dict[str, np.ndarray]
    device_seconds: float


class Engine:
    """A loaded model with its recipe, ready to generate."""

    def __init__(self, config: Config, model: Model, methods: Sequence[Method]):
        self.config = config
        self.model = model
        self.methods = tuple(methods)
        self.sampler = Sampler(model, methods)
        generation = config.generation
        self.guided = generation.guidance > 1 and "guidance" in model.family.offers
        model.family.latent_shape(*generation.size)  # refuses a size that cannot be made before any work

    @classmethod
    def load(cls, config: Config, recipe: CompiledRecipe | None, device: str) -> "Engine":
        """Load the model and put *recipe* to work in it; ``None`` is the model as it is."""
        model = load_model(config.model, torch.device(device))
        if recipe is None:
            return cls(config, model, ())
        recipe.apply(model)
        return cls(config, model, active_methods(config, model))

    def generate(
        self, samples: Sequence[Sample], seeds: Sequence[int] | None = None, excluded: frozenset[str] = frozenset()
    ) -> Iterator[Batch]:
        """Yield the pictures of *samples* in their order, batch by batch.

        ``seeds`` replaces the samples' own. The keys in ``excluded`` are not generated: padding fills their slots, so
        that their neighbours come out as ever.
        """
        used = {s.key: seed for s, seed in zip(samples, seeds or [s.seed for s in samples], strict=True)}
        pairs = [_pair(sample, excluded) for sample in samples]
        texts = encode_texts(self.model.family, pairs, self.methods, self.guided)
        generation = self.config.generation
        for batch in batches(samples, generation.batch_size):
            started = time.perf_counter()
            padding = generation.batch_size - len(batch)
            prompts = texts.batch([_pair(sample, excluded) for sample in batch] + [PADDING] * padding)
            pixels, gates = self.sampler.sample(
                prompts,
                [used[sample.key] for sample in batch] + [0] * padding,
                batch[0].width,
                batch[0].height,
                generation.steps,
                generation.guidance,
            )
            images, faults = _finished(pixels[: len(batch)])
            yield Batch(
                samples=batch,
                images=images,
                faults=[EXCLUDED if s.key in excluded else f for s, f in zip(batch, faults, strict=True)],
                gates={name: scores[: len(batch)].float().cpu().numpy() for name, scores in gates.items()},
                device_seconds=time.perf_counter() - started,
            )


def _pair(sample: Sample, excluded: frozenset[str]) -> Pair:
    return PADDING if sample.key in excluded else (sample.prompt, sample.negative_prompt)


def _finished(pixels: Tensor) -> tuple[np.ndarray, list[str | None]]:
    """Turn float ``(B, 3, H, W)`` in -1..1 into uint8 ``(B, H, W, 3)`` on the device, and look for faults."""
    finite = pixels.isfinite().flatten(1).all(1)
    scaled = torch.nan_to_num(pixels.float() / 2 + 0.5).clamp(0, 1).mul(255).round()
    images = scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    flat = images.flatten(1, 2).int()
    blank = (flat.amax(1) - flat.amin(1)).amax(1) <= BLANK
    faults: list[str | None] = [
        "nan" if not f else "blank" if b else None for f, b in zip(finite.tolist(), blank.tolist(), strict=True)
    ]
    return images.cpu().numpy(), faults
