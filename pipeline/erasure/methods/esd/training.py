"""ESD's training: the student's weights, and the teacher that denoises as far as a training step wants it."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from pipeline.erasure.methods.esd.loss import compute_erasure_loss
from pipeline.erasure.methods.esd.options import VARIANTS, ESDOptions
from pipeline.errors import ConfigError
from pipeline.models.family import Conditioning, Family
from pipeline.models.load import Model
from pipeline.models.scheduler import step_options
from pipeline.models.settle import own_size

# Of float16, whose least number is 6e-8: the mean over a picture's latents makes gradients so small that some are 0.
LOSS_SCALE = 1024.0


def trainable(family: Family, variant: str) -> dict[str, nn.Parameter]:
    """Return the weights that *variant* trains, by name from the pipeline on, in the denoiser's order."""
    prefix = family.denoiser_name
    attention = [projection for projection in family.text_projections() if projection.kind in ("key", "value")]
    projections = {projection.name for projection in attention}
    layers = tuple(f"{projection.layer}." for projection in attention)
    found = {}
    for module_name, module in family.denoiser.named_modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d)):
            continue
        for name, parameter in module.named_parameters(prefix=f"{prefix}.{module_name}", recurse=False):
            inside = name.startswith(layers)
            if {"x": inside, "x-strict": name in projections, "u": not inside, "all": True}[variant]:
                found[name] = parameter
    return found


class ESDTraining:
    """The student's weights and Adam's memory of them, both float32."""

    def __init__(self, model: Model, prompts: list[tuple[str, str]], kept: list[str], options: ESDOptions):
        self.model, self.prompts, self.kept, self.options = model, prompts, kept, options
        self.iterations = options.iterations
        self.advice = f"lower the option lr, which is {options.lr:g}"
        weights = trainable(model.family, options.variant)
        if not weights:
            raise ConfigError(
                f"esd: the model has no weight that the variant {options.variant} trains; expected another of "
                f"{', '.join(VARIANTS)}"
            )
        self.student = {
            name: parameter.detach().float().clone().requires_grad_() for name, parameter in weights.items()
        }
        self.optimizer = torch.optim.Adam(list(self.student.values()), lr=options.lr)
        self.loss_scale = LOSS_SCALE if model.dtype == torch.float16 else 1.0
        self.predict = _Prediction(model.family)
        self.scheduler = copy.deepcopy(model.pipe.scheduler)
        width, height = training_size(model, options)
        try:
            self.shape = model.family.latent_shape(width, height)
        except ConfigError as error:
            raise ConfigError(str(error).replace("generation.size", "esd: the option size")) from error
        model.family.check_steps(self.scheduler, options.steps, width, height, "esd: the option steps")
        self._sampled: tuple[int, _Sampled] | None = None

    def iterate(self, i: int) -> float:
        """Take one of Adam's steps on a batch of x_t at one timestep."""
        sampled = self._sampling(i // self.options.reuse)
        generator = self._generator(1, i)
        # Not options.steps: some schedulers call the denoiser twice a step (Heun, KDPM2), or more at first (PNDM).
        step = int(torch.randint(len(sampled.timesteps), (), generator=generator))
        latents, timestep = sampled.at(step)
        loss = compute_erasure_loss(
            self._student,
            self._teacher,
            latents,
            timestep,
            sampled.concept,
            sampled.neutral,
            negative_guidance=self.options.negative_guidance,
        )
        if self.options.preserve:
            drawn = torch.randint(len(self.kept), (len(latents),), generator=generator).tolist()
            kept = self.model.family.encode([self.kept[k] for k in drawn])
            stay = self._teacher(latents, timestep, kept).float()
            loss = loss + self.options.preserve * mse_loss(self._student(latents, timestep, kept).float(), stay)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * self.loss_scale).backward()
        for name, weight in self.student.items():
            if weight.grad is None:
                raise ConfigError(
                    f"esd: {name} takes no part in the prediction; another variant than {self.options.variant} leaves "
                    "it out"
                )
            weight.grad /= self.loss_scale
        self.optimizer.step()
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        state = {}
        for name, weight in self.student.items():
            moments = self.optimizer.state[weight]
            state[name] = weight.detach()
            for key in ("step", "exp_avg", "exp_avg_sq"):
                state[f"{name}:{key}"] = moments[key]
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, weight in self.student.items():
            full = tuple(weight.shape)
            for part, shape in (("", full), (":step", ()), (":exp_avg", full), (":exp_avg_sq", full)):
                have = tuple(state[name + part].shape) if name + part in state else "missing"
                if have != shape:
                    raise ConfigError(f"{name}{part} is {have}, but {shape} is expected")
        with torch.no_grad():
            for name, weight in self.student.items():
                weight.copy_(state[name])
                self.optimizer.state[weight] = {
                    key: state[f"{name}:{key}"].to("cpu" if key == "step" else weight.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }

    def tensors(self) -> dict[str, Tensor]:
        return {name: weight.detach().cpu() for name, weight in self.student.items()}

    def _teacher(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.model.family.predict(latents, timestep, conditioning, guidance=1.0)

    def _student(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        # The cast is part of the graph: gradients arrive at the float32 weights.
        weights = {name: weight.to(self.model.dtype) for name, weight in self.student.items()}
        predicted: Tensor = functional_call(self.predict, weights, (latents, timestep, conditioning))
        return predicted

    def _sampling(self, number: int) -> "_Sampled":
        if self._sampled is None or self._sampled[0] != number:
            self._sampled = number, self._sample(number)
        return self._sampled[1]

    def _sample(self, number: int) -> "_Sampled":
        """Draw a batch of prompts and noise, to be denoised as far as it is asked for."""
        options, generator = self.options, self._generator(0, number)
        chosen = torch.randint(len(self.prompts), (options.batch_size,), generator=generator).tolist()
        noise = torch.randn((options.batch_size, *self.shape), generator=generator)
        prompts, instead = zip(*(self.prompts[i] for i in chosen), strict=True)
        return self._begin(prompts, instead, noise, generator)

    def _begin(
        self, prompts: Sequence[str], instead: Sequence[str], noise: Tensor, generator: torch.Generator
    ) -> "_Sampled":
        family = self.model.family
        return _Sampled(
            self,
            concept=family.encode(prompts),
            neutral=family.encode_negative(instead),
            empty=family.encode_negative([""] * len(prompts)),
            noise=noise.to(self.model.device, family.dtype),
            generator=generator,
        )

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        """Return randomness that depends on the seed and on *number*, never on what was drawn before."""
        return torch.Generator().manual_seed((self.options.seed * 2 + purpose) * 1_000_003 + number)


class _Sampled:
    """A batch that the teacher denoises under guidance, step by step, as far as a training step wants it."""

    def __init__(
        self,
        training: ESDTraining,
        concept: Conditioning,
        neutral: Conditioning,
        empty: Conditioning,
        noise: Tensor,
        generator: torch.Generator,
    ):
        self.concept, self.neutral = concept, neutral
        self.both = Conditioning.cat([empty, concept])
        self.family, self.scheduler = training.model.family, copy.deepcopy(training.scheduler)
        self.guidance = training.options.guidance
        width, height = training_size(training.model, training.options)
        self.timesteps = self.family.set_timesteps(self.scheduler, training.options.steps, width, height)
        self.times = self.timesteps.to(training.model.device)  # the same, for the denoiser
        self.latents = [noise * getattr(self.scheduler, "init_noise_sigma", 1.0)]  # before each step, unscaled
        self.step_options = step_options(self.scheduler, generator)
        self.inputs: list[Tensor] = []  # the same, as the denoiser takes them

    @torch.no_grad()
    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Return x_t ``(B, C, h, w)``, as the denoiser takes it, before *step*, and its timestep."""
        scale = getattr(self.scheduler, "scale_model_input", lambda latents, timestep: latents)
        while len(self.inputs) <= step:
            at = len(self.inputs)
            if at:
                both = torch.cat([self.inputs[-1]] * 2)
                empty, concept = self.family.predict(both, self.times[at - 1], self.both, guidance=1.0).chunk(2)
                guided = empty + self.guidance * (concept - empty)
                previous = self.latents[-1]
                timestep, options = self.timesteps[at - 1], self.step_options
                self.latents.append(self.scheduler.step(guided, timestep, previous, return_dict=False, **options)[0])
            self.inputs.append(scale(self.latents[-1], self.timesteps[at]))
        return self.inputs[step], self.times[step]


class _Prediction(nn.Module):
    """``Family.predict`` as a module, whose parameters have their names from the pipeline on."""

    def __init__(self, family: Family):
        super().__init__()
        self.family = family
        self.add_module(family.denoiser_name, family.denoiser)

    def forward(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.family.predict(latents, timestep, conditioning, guidance=1.0)


def training_size(model: Model, options: ESDOptions) -> tuple[int, int]:
    """Return width and height in pixels of what is sampled to learn from; ``ConfigError`` where nothing tells them."""
    if options.size:
        width, height = options.size
        return width, height
    denoiser = getattr(model.pipe, model.family.denoiser_name)
    size = own_size(type(model.pipe).__name__, denoiser.config, model.pipe.vae.config)
    if size is None:
        raise ConfigError("esd: the model's config tells no sample_size; give the option size, [width, height]")
    return size
