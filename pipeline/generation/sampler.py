"""The sampling loop of one batch: noise, guided denoising with the recipe's steerings, pixels.

Noise is drawn on the CPU by one generator per picture, so a picture's noise depends on its seed alone and not on the
device or on its neighbours. Guidance runs both branches as one doubled batch: all negatives, then all positives.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config.sections.generation import Attention
from pipeline.erasure.method import Branch, Method, Prediction, Prompts, Sampling, Steering
from pipeline.errors import ConfigError, check_given, named_in_errors
from pipeline.generation.compilation import Compilation, kind_of
from pipeline.models.attention import AttentionState
from pipeline.models.family import Conditioning
from pipeline.models.kernels import attention_kernel
from pipeline.models.load import Model
from pipeline.models.scheduler import step_options
from pipeline.models.switching import Carrying, Switching
from pipeline.models.transfer import to_device

DECODED_PIXELS = 8 << 20  # decoded at once: 8 pictures of 1024x1024, which the VAE's activations make 6 GB of in bf16


class _Asked(NamedTuple):
    """Width and height in pixels, and how to sample."""

    width: int
    height: int
    steps: int
    guidance: float


class Sampler:
    """Samples batches with one model and the methods that act while sampling."""

    def __init__(
        self,
        model: Model,
        methods: Sequence[Method],
        compilation: Compilation | None = None,
        attention: Attention = Attention.native,
    ):
        """*attention* is installed (``pipeline.models.kernels``)."""
        self.model = model
        self.compilation = compilation
        self.attention = attention
        self._warming = False
        self.methods = [method for method in methods if method.has("steer")]
        self.state = AttentionState()
        self.layers = model.family.attach(self.state)
        # A copy of its own: a scheduler holds the state of the run it is in.
        self.scheduler = copy.deepcopy(model.pipe.scheduler)

    @torch.inference_mode()
    def sample(
        self,
        prompts: Prompts,
        seeds: Sequence[int],
        width: int,
        height: int,
        steps: int,
        guidance: float,
        watch: Callable[[int, Sequence[Steering]], None] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return pixels, float ``(B, 3, H, W)`` in about -1..1, and the gates, float32 ``(B,)`` by name.

        Raises ``ConfigError`` where what is to steer could do nothing on this model, at this size.

        ``watch`` is called after each run of the denoiser, with the step and the steerings at work.
        """
        with self._sealed():
            latents, steerings = self._denoise(prompts, seeds, _Asked(width, height, steps, guidance), watch)
            gates = dict(prompts.gates)
            for steering in steerings:
                gates |= steering.gates
            return self._decode(latents, width * height), gates

    def _sealed(self) -> AbstractContextManager[None]:
        return nullcontext() if self.compilation is None else self.compilation.sealed()

    @torch.inference_mode()
    def rehearse(self, prompts: Prompts, width: int, height: int, steps: int, guidance: float) -> None:
        """Take the first two of the *steps*, and make no picture.

        Raises ``ConfigError`` as ``sample`` does, where what is to steer could do nothing on this model, at this size.
        """
        self._denoise(prompts, [0] * len(prompts), _Asked(width, height, steps, guidance), most=2)

    def warm_up(self, prompts: Prompts, width: int, height: int, steps: int, guidance: float) -> None:
        """Have everything compiled that a batch of such *prompts* comes to, and pass over what is; make no picture."""
        self._warming = True
        try:
            self.sample(prompts, [0] * len(prompts), width, height, steps, guidance)
        finally:
            self._warming = False

    def _denoise(
        self,
        prompts: Prompts,
        seeds: Sequence[int],
        asked: _Asked,
        watch: Callable[[int, Sequence[Steering]], None] | None = None,
        most: int | None = None,
    ) -> tuple[Tensor, list[Steering]]:
        """Return latents ``(B, C, h, w)`` after the *steps*, or the first *most* of them, and who has steered."""
        family, device = self.model.family, self.model.device
        width, height, steps, guidance = asked
        shape = family.latent_shape(width, height)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        timesteps = family.set_timesteps(self.scheduler, steps, width, height)
        times = to_device(timesteps, device)  # the same, for the denoiser
        # Flow-matching schedulers scale neither noise nor input.
        latents = to_device(noise.to(family.dtype), device) * getattr(self.scheduler, "init_noise_sigma", 1.0)
        scale = getattr(self.scheduler, "scale_model_input", lambda latents, timestep: latents)
        steerings = self._steerings(prompts, Sampling(shape, len(timesteps), guidance))
        conditioning = (
            prompts.positive if prompts.negative is None else Conditioning.cat([prompts.negative, prompts.positive])
        )
        options = step_options(self.scheduler, generators)
        with (
            attention_kernel(self.attention),
            self.state.batch(conditioning.embeds, steerings, masked=conditioning.mask is not None),
        ):
            for step, (at, timestep) in enumerate(zip(timesteps[:most], times, strict=False)):
                for steering in steerings:
                    with named_in_errors(steering.where):
                        steering.begin(step, timestep)
                if step == 0 or any(steering.stale for steering in steerings):
                    self.state.prepare()
                scaled = scale(latents, at)
                with self.state.checked() if step == 0 and most is not None else nullcontext():
                    guided = self._predict(step, timestep, latents, scaled, conditioning, prompts, guidance, steerings)
                if step == 0:
                    self._check_reached(steerings)
                if watch is not None:
                    watch(step, steerings)
                latents = self.scheduler.step(guided, at, latents, return_dict=False, **options)[0]
        return latents, steerings

    def _check_reached(self, steerings: Sequence[Steering]) -> None:
        """Raise ``ConfigError`` for a steering that would take part in attention, and is never asked to."""
        crossed, joined = bool(self.state.layers), bool(self.state.joint_layers)
        reached = {"text": crossed, "switch": crossed, "blend": crossed, "joint": joined, "carrying": joined}
        for hook, is_reached in reached.items():
            for steering in steerings:
                acts = steering.carrying is not None if hook == "carrying" else steering.overrides(hook)
                if acts and not is_reached:
                    raise ConfigError(
                        f"erasure.recipe: {type(steering).__name__} acts in `{hook}`, which is never called on "
                        f"{self.model.family.name}: no layer of its {self.model.family.denoiser_name} that is opened "
                        "for it hears the text"
                    )

    def _steerings(self, prompts: Prompts, sampling: Sampling) -> list[Steering]:
        steerings = []
        for method in self.methods:
            with named_in_errors(method.where):
                steering = method.steer(prompts, sampling)
                check_given("steer", steering, Steering | None, "a Steering, or None")
            if steering is not None:
                steering.where = method.where
                steerings.append(steering)
        return steerings

    def _predict(
        self,
        step: int,
        timestep: Tensor,
        latents: Tensor,
        scaled: Tensor,
        conditioning: Conditioning,
        prompts: Prompts,
        guidance: float,
        steerings: Sequence[Steering],
    ) -> Tensor:
        """Run the denoiser once, then what further branches are asked for, and return the steered prediction."""
        negative: Tensor | None = None
        with self.state.forward():
            both = scaled if prompts.negative is None else torch.cat([scaled, scaled])
            predicted = self._forward(both, timestep, conditioning, guidance)
        if prompts.negative is None:
            positive = guided = predicted
        else:
            negative, positive = predicted.chunk(2)
            guided = negative + guidance * (positive - negative)
        for steering in steerings:
            if not steering.overrides("guide"):
                continue
            branch = None
            if steering.branch is not None:
                branch = self._branch(steering.branch, scaled, timestep, guidance)
            prediction = Prediction(
                step=step,
                timestep=timestep,
                latents=latents,
                positive=positive,
                negative=negative,
                guided=guided,
                branch=branch,
            )
            with named_in_errors(steering.where):
                guided = steering.guide(prediction)
                check_given("guide", guided, Tensor, "a tensor")
        return guided

    def _forward(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        """Run the denoiser on rows of scaled latents, as ``Family.predict`` does."""
        predict, state = self.model.family.predict, self.state
        if self.compilation is None:
            return predict(latents, timestep, conditioning, guidance)
        if state.steered and not state.traceable:
            raise ConfigError(
                "generation.compile: a step of the recipe acts in each layer with code of its own, which cannot be "
                "compiled; expected none"
            )
        latents = latents.contiguous()  # schedulers return now this layout, now that
        kind = kind_of(self._mode(), latents, conditioning.embeds, conditioning.pooled, conditioning.mask)
        if self._warming and self.compilation.knows(kind):
            return latents
        entered = [carrying.entered for carrying in state.carryings]

        def forward() -> Tensor:
            for carrying, text in zip(state.carryings, entered, strict=True):
                carrying.entered = text  # each forward carries it away
            return predict(latents, timestep, conditioning, guidance)

        return self.compilation.run(kind, forward)

    def _branch(self, branch: Branch, scaled: Tensor, timestep: Tensor, guidance: float) -> Tensor:
        """Predict what a steering asks for besides: where it is compiled, beside rows that fill it up to the batch."""
        rows, conditioning, count = branch.rows, branch.conditioning, len(branch.conditioning)
        if self.compilation is not None:
            filled = torch.arange(len(scaled), device=rows.device).clamp_(max=count - 1)
            rows, conditioning = rows[filled], conditioning.rows(filled)
        return self._forward(scaled[rows], timestep, conditioning, guidance)[:count]

    def _mode(self) -> str:
        """Return the mode of the forward that runs now, and, where several act in it, which of them gather."""
        acting: list[Switching | Carrying] = [*self.state.switchings, *self.state.carryings]
        if not self.state.steered or len(acting) == 1:
            return self.state.mode.value
        return f"{self.state.mode.value}_{''.join('ng'[one.gathers] for one in acting)}"

    def _decode(self, latents: Tensor, pixels: int) -> Tensor:
        size = max(1, min(len(latents), DECODED_PIXELS // pixels))
        return torch.cat([self._decoded(part) for part in latents.split(size)])

    def _decoded(self, latents: Tensor) -> Tensor:
        decode = self.model.family.decode
        if self.compilation is None:
            return decode(latents)
        latents = latents.contiguous()
        return self.compilation.run(kind_of("decode", latents), lambda: decode(latents))
