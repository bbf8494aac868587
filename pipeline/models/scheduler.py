"""A model's scheduler: its own or the one that the config names, made of the checkpoint's settings, and checked.

Whether its steps can be made, and draw all their noise from the generators that they are given, is tried out
(``trial.py``); here is what would draw another picture without a word.
"""

import inspect
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch

from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError, nearest
from pipeline.models.family import Family
from pipeline.models.files import read_settings
from pipeline.registry import SCHEDULERS

ETA = "eta"  # DDIM's and TCD's: the share of noise put back at a step; an argument of steps, 0 in diffusers' pipelines
_SUCH_AS = {
    "betas": "EulerDiscreteScheduler or DDIMScheduler",
    "edm": "EDMEulerScheduler or EDMDPMSolverMultistepScheduler",
    "flow": "FlowMatchEulerDiscreteScheduler",
}
_REFUSALS = (ValueError, NotImplementedError, TypeError, ImportError, AttributeError, LookupError, ArithmeticError)


def load_scheduler(where: str, folder: Path, index: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Make the scheduler that *config* names, or else the model's own, of the settings in the model's *folder*.

    Returns it by its name in the pipeline; nothing where the model's *index* names no scheduler of diffusers, or the
    folder has none, which diffusers then refuses. Raises ``ConfigError``, about *where* or the config's key, for one
    that cannot be made.
    """
    source, path = index.get("scheduler"), folder / "scheduler" / "scheduler_config.json"
    if not (isinstance(source, list) and len(source) == 2 and source[0] == "diffusers" and path.is_file()):
        return {}
    own = str(source[1])
    settings = read_settings(where, folder, "scheduler/scheduler_config.json")
    key, name = scheduler_key(where, config), config.scheduler or own
    remedy = "" if config.scheduler else f"; model.scheduler may name another, such as {_SUCH_AS[_integrates(name)]}"
    kind = getattr(diffusers, name, None)
    if kind is None:
        raise ConfigError(f"{key}: diffusers has no {name}{nearest(name, SCHEDULERS)}{remedy}")
    if packages := _lacking(kind):
        raise ConfigError(
            f"{key}: {name} needs {packages}, which is not installed here: pip install {packages}{remedy}"
        )
    if not hasattr(kind, "step"):
        raise ConfigError(f"{key}: {name} takes no steps of the kind that this model needs{remedy}")
    _check_betas(name, own, settings, config)
    options = _options(kind, config)
    try:
        return {"scheduler": kind.from_config(settings, **options)}
    except _REFUSALS as error:
        raise _unmade(key, name, error, config, remedy) from error


def scheduler_key(where: str, config: ModelConfig) -> str:
    """Return what messages about the scheduler begin with: the config's key, or the model's own."""
    return f"{where}: its scheduler" if config.scheduler is None else "model.scheduler"


def set_scheduler(where: str, pipe: Any, config: ModelConfig, family: type[Family]) -> None:
    """Make the scheduler of *pipe* anew, whose settings diffusers' pipeline may have corrected, and check that it
    integrates what *family* predicts. The config's own options come last."""
    kind = type(pipe.scheduler)
    options = _options(kind, config)
    try:
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **options)
    except _REFUSALS as error:
        raise _unmade(scheduler_key(where, config), kind.__name__, error, config, "") from error
    if _takes_eta(kind):
        pipe.scheduler.register_to_config(**{ETA: config.scheduler_options.get(ETA, 0.0)})
    _check_flow(scheduler_key(where, config), pipe.scheduler, family)


def check_scheduler_options(config: ModelConfig) -> None:
    """Raise ``ConfigError`` for an option that the scheduler which *config* names has not; no weights are read."""
    if config.scheduler is not None:
        _options(getattr(diffusers, config.scheduler), config)


def step_options(scheduler: Any, generators: Sequence[torch.Generator] | torch.Generator) -> dict[str, Any]:
    """Return what the ``step`` of *scheduler* is told besides: who draws its noise, and its ``eta``."""
    taken = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {"generator": generators} if "generator" in taken else {}
    return options | ({ETA: scheduler.config.get(ETA, 0.0)} if ETA in taken else {})


def _takes_eta(kind: type) -> bool:
    return ETA in inspect.signature(kind.step).parameters  # type: ignore[attr-defined]


def _options(kind: type, config: ModelConfig) -> dict[str, Any]:
    """Return the config's options but ``eta``; raise ``ConfigError`` for one that *kind* has not."""
    known = [name for name in inspect.signature(kind).parameters if name != "kwargs"]
    known += [ETA] if _takes_eta(kind) else []
    for key, value in config.scheduler_options.items():
        where = f"model.scheduler_options.{key}"
        if key not in known:
            raise ConfigError(f"{where}: {kind.__name__} has no such option{nearest(key, known)}")
        if key == ETA and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
            raise ConfigError(f"{where}: is {value!r}; expected a number from 0 to 1")
    return {key: value for key, value in config.scheduler_options.items() if key != ETA}


def _unmade(key: str, name: str, error: Exception, config: ModelConfig, remedy: str) -> ConfigError:
    reason = " ".join(str(error).split())[:300]
    if config.scheduler_options:
        return ConfigError(f"model.scheduler_options: {name} refuses them: {reason}")
    return ConfigError(f"{key}: {name} cannot be made of scheduler/scheduler_config.json: {reason}{remedy}")


def _lacking(kind: type) -> str:
    """Return the packages that diffusers asks for before it has this class, and that are not here."""
    packages = getattr(kind, "_backends", ())  # of the class that stands in for it
    return " ".join(package for package in packages if find_spec(package) is None)


def _integrates(name: str) -> str:
    if name.startswith("EDM"):
        return "edm"
    return "flow" if name.startswith("Flow") else "betas"


def _check_betas(name: str, own: str, settings: dict[str, Any], config: ModelConfig) -> None:
    """Refuse a scheduler whose noise levels are not the checkpoint's: it would take its defaults without a word."""
    if config.scheduler is None:
        return
    edm = [_integrates(x) == "edm" for x in (name, own)]
    if edm == [False, True]:
        raise ConfigError(
            f"model.scheduler: {name} steps through betas, but the model was trained for the noise levels of its {own} "
            f"(EDM); use {_SUCH_AS['edm']}"
        )
    if edm == [True, False]:
        raise ConfigError(
            f"model.scheduler: {name} (EDM) fits checkpoints that were trained for it; this one comes with {own}"
        )
    kind, default = (inspect.signature(getattr(diffusers, x, object)).parameters for x in (name, own))
    stated = "beta_start" in default or not {"beta_start", "trained_betas"}.isdisjoint(
        key for key, value in {**settings, **config.scheduler_options}.items() if value is not None
    )
    flows = bool(config.scheduler_options.get("use_flow_sigmas")) or _integrates(own) == "flow"
    if "beta_start" in kind and not (flows or stated or "args" in default):
        raise ConfigError(
            f"model.scheduler: {name} steps through betas, and the model's own {own} states none; give beta_start, "
            "beta_end and beta_schedule as model.scheduler_options"
        )


def _check_flow(key: str, scheduler: Any, family: type[Family]) -> None:
    """Refuse a scheduler that would integrate something else than what the model predicts."""
    name = type(scheduler).__name__
    flows = name.startswith("FlowMatch") or bool(scheduler.config.get("use_flow_sigmas"))
    if flows and not family.flow:
        raise ConfigError(f"{key}: {name} integrates a flow, but {family.name} predicts noise or velocity")
    if family.flow and not flows:
        raise ConfigError(
            f"{key}: {name} does not integrate the flow that {family.name} predicts; use "
            "FlowMatchEulerDiscreteScheduler, or one with scheduler_options "
            "{use_flow_sigmas: true, prediction_type: flow_prediction}"
        )
    shifts = scheduler.config.get("use_dynamic_shifting")
    if shifts and "mu" not in inspect.signature(scheduler.set_timesteps).parameters:
        raise ConfigError(f"{key}: {name} cannot shift its schedule by the picture's size, as this model's does")
