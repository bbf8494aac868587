"""ESD: fine-tunes the denoiser until a concept's prompt steers away from it (Gandikota et al., ICCV 2023).

Arxiv 2303.07345, eq. 7, in the form in which the authors' code states it today (``compute_erasure_loss``): a frozen
copy of the model is the teacher, and the student learns to answer the concept's prompt with

    e*(x_t, c) - eta (e*(x_t, c) - e*(x_t, n))

n is the prompt that stands in its place, the empty one in the paper; a concept's ``anchor`` is used where it has one.
eta = 1 gives e*(n), and eta = 2 the paper's e*(n) - 1 (e*(c) - e*(n)). The x_t come from the teacher, which denoises
the concept's prompt with guidance up to a random step, so no pictures are needed.

The coefficients add up to one, so the same equation holds for models that predict velocity: v is affine in e at a given
x_t, and only the weight of a timestep in the loss differs.

``variant`` says which weights learn, linear layers and convolutions alone, as in the authors' code:

    x          attention to text (for what a prompt names)
    x-strict   its keys and values
    u          all the rest (for what must go whatever the prompt says, such as nudity)
    all        everything

One term is ours: with nothing to hold it, ESD drags neighbours and unrelated prompts along. So at the same x_t the
student is held to the teacher's answer for prompts of a concept's anchor and neighbours and for texts that have nothing
to do with it, with the weight ``preserve``; 0 is the authors' ESD.

Weights and optimizer are float32 whatever the model's dtype, since Adam's steps of 1e-5 vanish in bfloat16; a float16
model's loss is scaled. Teacher and student share the model's other weights: only those that learn exist twice.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from pipeline.concepts.words import word_pattern
from pipeline.config.schema import GenerationConfig
from pipeline.erasure.method import Method, Training
from pipeline.erasure.templates import KEEP, check_template, fill
from pipeline.erasure.tokens import word_rows
from pipeline.errors import ConfigError, nearest
from pipeline.models.family import Conditioning, Family
from pipeline.models.load import Model
from pipeline.models.scheduler import step_options

VARIANTS = ("x", "x-strict", "u", "all")
# Of float16, whose least number is 6e-8: the mean over a picture's latents makes gradients small. On the diorama, whose
# latents are 8 times fewer than Stable Diffusion's, 1 of 1,000 was 0 without it, and 4 of a million with it.
LOSS_SCALE = 1024.0
RANGE = 1e36  # Adam multiplies by 10 in its first step; float32 ends at 3.4e38
C = TypeVar("C")


def compute_erasure_loss(
    student: Callable[[Tensor, Tensor, C], Tensor],
    teacher: Callable[[Tensor, Tensor, C], Tensor],
    latents: Tensor,
    timestep: Tensor,
    concept: C,
    neutral: C,
    *,
    erase_from: C | None = None,
    negative_guidance: float = 2.0,
) -> Tensor:
    """Return ESD's loss, a float32 scalar whose gradient reaches the student alone.

        L = mean (e_s(x_t, f) - [e*(x_t, f) - eta (e*(x_t, c) - e*(x_t, n))])^2

    ``student`` e_s and ``teacher`` e* map latents x_t ``(B, C, h, w)``, the timestep (a scalar, or ``(B,)``) and a
    conditioning to a prediction ``(B, C, h, w)``, of noise or of velocity. A conditioning is whatever they take: token
    embeddings ``(B, T, D)``, or a ``Conditioning``. ``concept`` is c; ``neutral`` n is the empty prompt in the paper;
    ``erase_from`` f is the prompt whose answer changes, c itself if not given (to take "nude" out of "a woman", f is
    the latter). ``negative_guidance`` is eta in the authors' code: eta = 2 there is the paper's eta = 1 where f is c.

    The teacher runs without gradient and must not share the student's trained weights; it is the model before training.

    Gandikota et al., "Erasing Concepts from Diffusion Models", ICCV 2023, eq. 7.
    """
    source = concept if erase_from is None else erase_from
    with torch.no_grad():
        at_concept = teacher(latents, timestep, concept).float()
        at_source = at_concept if erase_from is None else teacher(latents, timestep, source).float()
        at_neutral = teacher(latents, timestep, neutral).float()
        target = at_source - negative_guidance * (at_concept - at_neutral)
    return mse_loss(student(latents, timestep, source).float(), target)


@dataclass(kw_only=True)
class ESDOptions:
    """The authors' defaults are those for Stable Diffusion 1.4, where a batch is one picture and ``reuse`` 1."""

    variant: str = "x"
    iterations: int = 200
    lr: float = 5e-5
    batch_size: int = 1
    negative_guidance: float = 2.0  # eta above
    steps: int = 50  # of the sampling that x_t is taken from
    guidance: float = 3.0  # in that sampling
    preserve: float = 1.0  # weight of prompts that are to stay as they are; 0 leaves them out
    reuse: int = 1  # iterations that take their x_t from one sampling, each at a step of its own
    size: list[int] = field(default_factory=list)  # [width, height] in pixels; default: the model's own
    templates: list[str] = field(default_factory=lambda: ["{}", "a photo of a {}"])  # prompts of a concept
    keep: list[str] = field(default_factory=lambda: list(KEEP))  # texts preserved besides the concepts' neighbours
    seed: int = 0

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ConfigError(
                f"variant {self.variant!r} is unknown{nearest(self.variant, VARIANTS)}; "
                f"expected one of {', '.join(VARIANTS)}"
            )
        for name in ("iterations", "batch_size", "steps", "reuse"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        for name in ("lr", "negative_guidance"):
            if not 0 < getattr(self, name) < RANGE:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0, and within float32's range")
        if self.preserve < 0:
            raise ConfigError(f"preserve is {self.preserve}; expected 0 or more")
        if not 1 <= self.guidance <= 1000:
            raise ConfigError(f"guidance is {self.guidance:g}; expected 1 to 1000")
        if not -(2**31) <= self.seed < 2**31:
            raise ConfigError(f"seed is {self.seed}; expected a number of 32 bits")
        if self.size and len(self.size) != 2:
            raise ConfigError(f"size is {self.size}; expected [width, height] in pixels")
        if not self.templates:
            raise ConfigError("templates is empty; expected at least one, such as 'a photo of a {}'")
        for template in self.templates:
            check_template(template)


class ESD(Method):
    """Trains weights of the denoiser (`lacuna finetune`); a run takes the result."""

    Options = ESDOptions
    requires = frozenset({"cross_attention", "guidance"})
    stronger, weaker = "raise iterations or lr", "lower iterations or lr, raise preserve"
    options: ESDOptions

    @classmethod
    def check_sampling(cls, options: Any, generation: GenerationConfig) -> None:
        """Asks nothing: its guidance is that of training, and what it leaves is weights."""

    def train(self) -> Training:
        return ESDTraining(self.model, self._prompts(), self._kept(), self.options)

    def _prompts(self) -> list[tuple[str, str]]:
        """Return every prompt of every concept, with the one that stands in its place."""
        prompts = []
        for concept in self.concepts:
            for word in concept.words:
                for template in self.options.templates:
                    text = fill(template, word)
                    for stream in self.model.family.streams:
                        word_rows(stream, text, word, self.label)
                    prompts.append((text, fill(template, concept.anchor) if concept.anchor else ""))
        return prompts

    def _kept(self) -> list[str]:
        """Return the prompts that are to stay as they are; none of them names what is erased."""
        erased = word_pattern([word for concept in self.concepts for word in concept.words])
        words = {word for concept in self.concepts for word in (*concept.preserve, concept.anchor) if word}
        texts = [fill(template, word) for word in sorted(words) for template in self.options.templates]
        return ["", *(text for text in [*texts, *self.options.keep] if not erased.search(text))]


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
        self.student = {
            name: parameter.detach().float().clone().requires_grad_()
            for name, parameter in trainable(model.family, options.variant).items()
        }
        self.optimizer = torch.optim.Adam(list(self.student.values()), lr=options.lr)
        self.loss_scale = LOSS_SCALE if model.dtype == torch.float16 else 1.0
        self.predict = _Prediction(model.family)
        self.scheduler = copy.deepcopy(model.pipe.scheduler)
        width, height = options.size or native_size(model)
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
        for weight in self.student.values():
            assert weight.grad is not None
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
        return functional_call(self.predict, weights, (latents, timestep, conditioning))

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
        width, height = training.options.size or native_size(training.model)
        self.timesteps = self.family.set_timesteps(self.scheduler, training.options.steps, width, height)
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
                empty, concept = self.family.predict(both, self.timesteps[at - 1], self.both, guidance=1.0).chunk(2)
                guided = empty + self.guidance * (concept - empty)
                previous = self.latents[-1]
                timestep, options = self.timesteps[at - 1], self.step_options
                self.latents.append(self.scheduler.step(guided, timestep, previous, return_dict=False, **options)[0])
            self.inputs.append(scale(self.latents[-1], self.timesteps[at]))
        return self.inputs[step], self.timesteps[step]


class _Prediction(nn.Module):
    """``Family.predict`` as a module, whose parameters have their names from the pipeline on."""

    def __init__(self, family: Family):
        super().__init__()
        self.family: Any = family
        self.add_module(family.denoiser_name, family.denoiser)

    def forward(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.family.predict(latents, timestep, conditioning, guidance=1.0)


def native_size(model: Model) -> tuple[int, int]:
    """Return the width and height in pixels that the model was trained for."""
    sample = model.family.denoiser.config.sample_size  # of the latents: a side, or height and width
    if sample is None:
        raise ConfigError("esd: the model's config tells no sample_size; give the option size, [width, height]")
    height, width = (sample, sample) if isinstance(sample, int) else sample
    return width * model.pipe.vae_scale_factor, height * model.pipe.vae_scale_factor
