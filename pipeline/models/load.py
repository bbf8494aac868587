"""From a config's ``model`` to a pipeline in memory: found, pinned to bytes, its scheduler set and its LoRAs fused; or
to as much of it as tells what words mean.

Only safetensors are read and no code of a model's repository is run. Knows nothing of erasure or sampling.
"""

import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from pipeline.config.schema import DType, ModelConfig
from pipeline.errors import ConfigError, nearest
from pipeline.models.adapters import fuse_adapters
from pipeline.models.dtype import fast_dtype
from pipeline.models.family import Family
from pipeline.models.files import check_fetched, loaded_files
from pipeline.models.find import Found, find_model
from pipeline.models.hub import asking_the_hub
from pipeline.models.parts import check_parts, empty_networks, load_networks
from pipeline.models.scheduler import load_scheduler, scheduler_key, set_scheduler
from pipeline.models.trial import try_out, try_summaries
from pipeline.registry import SCHEDULERS

DTYPES = {DType.float32: torch.float32, DType.bfloat16: torch.bfloat16, DType.float16: torch.float16}


@dataclass(frozen=True)
class Model:
    """A pipeline ready for use, in ``eval`` mode and without gradients.

    ``revision`` says which bytes it was made of: the commit on the hub, or the sha256 over a local folder's files;
    where adapters were fused, theirs follow after "+".
    """

    pipe: Any
    family: Family
    revision: str
    device: torch.device
    dtype: torch.dtype

    def parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the weights of all parts, by name from the pipeline on ("unet.….weight")."""
        for part, module in self.pipe.components.items():
            if isinstance(module, torch.nn.Module):
                yield from module.named_parameters(prefix=part)


def load_model(config: ModelConfig, device: torch.device) -> Model:
    """Load the configured pipeline onto *device*.

    Raises ``ConfigError``, in one line, for a model that is not there, is no diffusers folder, has no safetensors, is
    of a class that no family supports, whose parts are not whole or do not belong together, or whose scheduler or
    adapters cannot be used.
    """
    where, found = f"model.path: {config.path}", _found(config)
    revision = found.revision(config.variant)
    pipe, dtype = _pipeline(config, found, device)
    family_class = found.family()
    adapters = fuse_adapters(pipe, config.adapters)
    pipe.to(device)
    if device.type == "cuda":  # cuDNN's convolutions want their channels last, and would reorder at every layer
        for part in (getattr(pipe, family_class.denoiser_name), pipe.vae):
            part.to(memory_format=torch.channels_last)
    family = family_class(pipe, device)
    try_out(where, family, scheduler_key(where, config))
    return Model(pipe, family, "+".join([revision, *adapters]), device, dtype)


def load_text(config: ModelConfig, device: torch.device) -> Family:
    """Load onto *device* what of the configured pipeline tells what words mean: tokenizers, and the networks that
    ``Family.summaries`` runs, whose weights alone are read. All others have shapes and no values ("meta"), and cannot
    be run.

    The whole pipeline is loaded where the family does not tell which networks those are, or where LoRAs are fused, as
    they may be of any part. Raises ``ConfigError`` as ``load_model`` does, of what is loaded.
    """
    found = _found(config)
    family_class = found.family()
    if config.adapters or not family_class.summary_networks:
        return load_model(config, device).family
    pipe, _ = _pipeline(config, found, device, family_class.summary_networks)
    for part in family_class.summary_networks:
        getattr(pipe, part).to(device)
    family = family_class(pipe, device)
    try_summaries(f"model.path: {config.path}", family)
    return family


def _found(config: ModelConfig) -> Found:
    if config.scheduler is not None and config.scheduler not in SCHEDULERS:
        raise ConfigError(
            f"model.scheduler: unknown scheduler {config.scheduler!r}{nearest(config.scheduler, SCHEDULERS)}; "
            f"expected one of {', '.join(SCHEDULERS)}"
        )
    return find_model(config)


def _pipeline(
    config: ModelConfig, found: Found, device: torch.device, only: Collection[str] | None = None
) -> tuple[Any, torch.dtype]:
    """Return the pipeline in host memory, in its dtype for *device*; with *only* some networks where these are named.

    Its parts belong together, its scheduler is set, and nothing of it is trained.
    """
    where, family_class = f"model.path: {config.path}", found.family()
    for library in (diffusers, transformers):  # their bars and hints would fill every worker's log
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    dtype = DTYPES[fast_dtype(device.type) if config.dtype is DType.auto else config.dtype]
    # Parts that a model was saved without (SD3 without T5) must be said to be absent.
    absent = {part: None for part, source in found.index.items() if source == [None, None]}
    options = {**absent, **family_class.load_options}
    empty = {} if only is None else empty_networks(where, found, dtype, {*only, *options})
    pipe = _from_pretrained(config, found, dtype, options, empty)
    check_parts(where, pipe, family_class)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    set_scheduler(where, pipe, config, family_class)
    pipe.set_progress_bar_config(disable=True)
    return pipe, dtype


def _from_pretrained(
    config: ModelConfig, found: Found, dtype: torch.dtype, options: dict[str, Any], empty: dict[str, torch.nn.Module]
) -> Any:
    """Return the pipeline, of which the networks *empty* are neither fetched nor read."""
    where, pipe_class = f"model.path: {config.path}", getattr(diffusers, found.class_name, None)
    if pipe_class is None:
        raise ConfigError(f"{where} is a {found.class_name}, which diffusers {diffusers.__version__} does not have")
    files: dict[str, Any] = {"variant": config.variant, "use_safetensors": True}
    try:
        folder = found.location
        if found.commit is not None:
            with asking_the_hub(where, folder, found.commit):
                left_out = {**options, **dict.fromkeys(empty)}
                folder = pipe_class.download(folder, revision=found.commit, **files, **left_out)
        for part in found.parts():
            if part not in empty and (Path(folder) / part).is_dir():
                check_fetched(f"{where}: {part}", loaded_files(Path(folder) / part, config.variant))
        scheduler = load_scheduler(where, Path(folder), found.index, config)
        networks = empty | load_networks(where, Path(folder), found.index, dtype, config.variant, {*options, *empty})
        # diffusers would look for the class that the index names, which another may stand in for.
        later = dict.fromkeys(scheduler)
        pipe = pipe_class.from_pretrained(folder, dtype=dtype, **files, **options, **networks, **later)
        values = {**pipe.config, **pipe.components, **options, **scheduler}
        return pipe_class(**{key: values[key] for key in inspect.signature(pipe_class).parameters if key in values})
    except (OSError, ValueError, SafetensorError) as error:
        absent = [part for part in found.parts() if not (Path(folder) / part).is_dir()]
        if absent:
            place = "" if found.commit is None else " in the local cache"
            are = "which is not there" if len(absent) == 1 else "which are not there"
            raise ConfigError(
                f"{where} is not whole{place}: its model_index.json names {', '.join(absent)}, {are}"
            ) from error
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where} cannot be loaded from safetensors: {reason[:300]}") from error
