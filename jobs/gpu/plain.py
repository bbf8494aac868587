"""Plain diffusers, as its documentation has it: the pipeline called with prompts, eager and with denoiser and decoder
compiled."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from jobs.gpu.measure import share_of_roofline, timed
from jobs.gpu.models import Kind
from jobs.gpu.prompts import OTHER
from pipeline.models.load import Model

BATCHES = 2  # that are timed


class Plain:
    """The pipeline of *model* with its own processors."""

    def __init__(self, kind: Kind, tiny: bool, model: Model, known: Mapping[str, Any], code: Path):
        self.asked, self.model, self.known = kind.asked(tiny), model, known

    def steps(self) -> Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]:
        yield "diffusers, eager", self.eager
        yield "diffusers, compiled", self.compiled

    def eager(self) -> Mapping[str, Any]:
        self.draw()
        rate = self.rate()
        return {"images_per_second": rate, **share_of_roofline(rate, self.known)}

    def compiled(self) -> Mapping[str, Any]:
        torch.compiler.reset()
        denoiser, vae = self.model.family.denoiser, self.model.pipe.vae
        denoiser.compile(fullgraph=True)
        vae.decoder.compile(fullgraph=True)
        started = time.perf_counter()
        self.draw()
        first = time.perf_counter() - started
        rate = self.rate()
        compiling = first - self.asked.batch / rate
        return {"images_per_second": rate, **share_of_roofline(rate, self.known), "compile_seconds": compiling}

    def rate(self) -> float:
        """Images per second."""
        with timed(self.model.device) as seconds:
            for _ in range(BATCHES):
                self.draw()
        return BATCHES * self.asked.batch / seconds[0]

    def draw(self) -> Any:
        """Return one batch, uint8 ``(B, 3, H, W)`` in host memory."""
        asked, pipe = self.asked, self.model.pipe
        of_t5 = self.model.family.denoiser_name == "transformer"
        more = {"max_sequence_length": pipe.tokenizer_2.model_max_length} if of_t5 else {}
        images = pipe(
            prompt=[OTHER[i % len(OTHER)] for i in range(asked.batch)], num_inference_steps=asked.steps,
            guidance_scale=asked.guidance, width=asked.pixels, height=asked.pixels,
            generator=[torch.Generator().manual_seed(i) for i in range(asked.batch)], output_type="pt", **more,
        ).images  # fmt: skip
        return images.mul(255).round().to(torch.uint8).cpu()
