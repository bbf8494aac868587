"""A loaded model tried out on a tiny picture, before any work: can it draw at all, and from its seed alone?

Some schedulers and some decoders draw noise from generators that are not the picture's. They are found by what they do
and not by their names: the scheduler's steps give a picture other values beside another picture than alone, a network
gives others when it is run again, or torch's own generators have moved on.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.family import Family
from pipeline.models.replaceable import check_cross_attention
from pipeline.models.scheduler import step_options

STEPS = 4  # of the scheduler: more than any keeps in memory of the steps before
SEEDS = (1, 2)
ROUNDING = 1e-4  # of float32 in the scheduler's steps, as a share of the largest value

_UNDECIDED = "draws noise that the picture's seed does not decide"

# What a part that does not fit raises from the libraries' depths. A fault of ours would too, and would then be told as
# the model's; running out of memory, which is neither, is let through.
_FAULTS = (ValueError, TypeError, AttributeError, LookupError, RuntimeError, NotImplementedError, ImportError)


@torch.no_grad()
def try_out(where: str, family: Family, scheduler_key: str) -> None:
    """Encode a text, take a few steps of the scheduler, run the denoiser and the decoder, each on a tiny picture.

    Raises ``ConfigError`` from *where*, or *scheduler_key*, for a part that fails, that draws noise which the picture's
    seed does not decide, or with layers that hear the text and that no method could edit or steer.
    """
    pipe, size = family.pipe, _smallest(family)
    shape = family.latent_shape(size, size)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in _generators()])
    scheduler, name = pipe.scheduler, type(pipe.scheduler).__name__
    with _told(f"{scheduler_key}: {name} cannot be used (model.scheduler and its options may say otherwise)"):
        beside, alone = (_steps(family, noise, rows, size) for rows in (slice(0, 2), slice(1, 2)))
    if not _alike(beside[-1], alone[-1]):
        raise ConfigError(f"{scheduler_key}: {name} {_UNDECIDED}; model.scheduler may name another")
    with _told(f"{where}: its text encoder cannot be used"):
        text = family.encode(["a"])
        if text.embeds.dim() != 3:
            kind, given = type(pipe.text_encoder).__name__, tuple(text.embeds.shape[1:])
            raise ValueError(f"{kind} gives one vector {given} for a whole text; it takes one for each token")
    latents = noise[:1].to(family.device, family.dtype)
    part = family.denoiser_name
    with _hearing(family) as heard:
        timestep = family.set_timesteps(copy.deepcopy(scheduler), STEPS, size, size)[0].to(family.device)
        _run(where, part, lambda: family.predict(latents, timestep, text, 1.0), family)
    _check_heard(where, family, heard)
    _run(where, "vae", lambda: family.decode(latents), family)


@torch.no_grad()
def try_summaries(where: str, family: Family) -> None:
    """Have a text summed up; ``ConfigError`` from *where* where its encoder fails, or asks for a network that has no
    values."""
    with _told(f"{where}: its text encoder cannot be used"):
        family.summaries(["a"]).cpu()


def _run(where: str, part: str, run: Callable[[], Tensor], family: Family) -> None:
    """Run the network *part* twice."""
    what = f"{where}: its {part}, {type(getattr(family.pipe, part)).__name__},"
    before = _random_state(family.device)
    with _told(f"{what} cannot be used"):
        first, again = run(), run()
    if not (_alike(first, again) and torch.equal(before, _random_state(family.device))):
        raise ConfigError(f"{what} {_UNDECIDED}; it cannot be used")


def _random_state(device: torch.device) -> Tensor:
    """Return the state of torch's own generators."""
    here = torch.get_rng_state()
    return torch.cat([here, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else here


def _smallest(family: Family) -> int:
    """Return the side of a square picture, in pixels, that the model can make."""
    for size in (32, 64, 128, 256, 512):
        try:
            family.latent_shape(size, size)
        except ConfigError:
            continue
        return size
    return 1024


def _generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def _steps(family: Family, noise: Tensor, rows: slice, size: int) -> Tensor:
    """Return what the scheduler makes of noise where the denoiser always predicts that noise again."""
    scheduler = copy.deepcopy(family.pipe.scheduler)
    timesteps = family.set_timesteps(scheduler, STEPS, size, size)
    predicted = noise[rows].to(family.device)
    latents = predicted * getattr(scheduler, "init_noise_sigma", 1.0)
    options = step_options(scheduler, _generators()[rows])
    for timestep in timesteps:
        if hasattr(scheduler, "scale_model_input"):  # some refuse steps before it
            scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False, **options)[0]
    return latents


def _alike(one: Tensor, other: Tensor) -> bool:
    one, other = one.float(), other.float()
    largest = float(other.nan_to_num(0, 0, 0).abs().max())  # half precision may have left its range
    return bool(torch.allclose(one, other, rtol=0, atol=ROUNDING * largest, equal_nan=True))


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except _FAULTS as error:
        raise ConfigError(f"{what}: {' '.join(str(error).split())[:300]}") from error


@contextmanager
def _hearing(family: Family) -> Iterator[set[str]]:
    """Collect the names, from the pipeline on, of the denoiser's attention layers that are given text meanwhile."""
    heard: set[str] = set()
    handles = []
    for name, module in family.denoiser.named_modules():
        if isinstance(module, Attention):

            def note(
                _: nn.Module, args: Any, kwargs: dict[str, Any], name: str = f"{family.denoiser_name}.{name}"
            ) -> None:
                if kwargs.get("encoder_hidden_states") is not None:
                    heard.add(name)

            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _check_heard(where: str, family: Family, heard: set[str]) -> None:
    """Refuse a denoiser with cross-attention whose layers are not those that methods edit and steer."""
    if "cross_attention" not in family.offers:
        return
    known = {projection.layer for projection in family.text_projections() if projection.kind in ("key", "value")}
    for name in sorted(heard & known):
        layer = family.denoiser.get_submodule(name.partition(".")[2])
        check_cross_attention(f"{where}: its {name}", layer)
    if heard != known:
        other = min(heard ^ known)
        raise ConfigError(
            f"{where}: of the {len(heard)} layers of its {family.denoiser_name} that hear the text "
            f"{len(heard & known)} are of a kind that can be edited and steered; {other} is not"
        )
