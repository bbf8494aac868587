"""From a config's ``model`` to a pipeline in memory: found, pinned to bytes, its scheduler set and its LoRAs fused.

Only safetensors are read and no code of a model's repository is run. Knows nothing of erasure or sampling.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pipeline.config.schema import DType, ModelConfig
from pipeline.diorama import DIORAMA_PATH
from pipeline.errors import ConfigError, nearest
from pipeline.models.adapters import fuse_adapters
from pipeline.models.dtype import fast_dtype
from pipeline.models.family import Family
from pipeline.models.registry import FAMILIES, SCHEDULERS
from pipeline.registry import load_class

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
    of a class that no family supports, or whose scheduler or adapters cannot be used.
    """
    if config.scheduler is not None and config.scheduler not in SCHEDULERS:
        raise ConfigError(
            f"model.scheduler: unknown scheduler {config.scheduler!r}{nearest(config.scheduler, SCHEDULERS)}; "
            f"expected one of {', '.join(SCHEDULERS)}"
        )
    location, revision, index = _locate(config)
    class_name = index.get("_class_name", "none")
    if class_name not in FAMILIES:
        raise ConfigError(
            f"model.path: {config.path} is a {class_name}, which is not supported{nearest(class_name, FAMILIES)}; "
            f"expected one of {', '.join(sorted(FAMILIES))}"
        )
    for library in (diffusers, transformers):  # their bars and hints would fill every worker's log
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    family_class: type[Family] = load_class("family", class_name, FAMILIES, Family)
    dtype = DTYPES[fast_dtype(device.type) if config.dtype is DType.auto else config.dtype]
    # Parts that a model was saved without (SD3 without T5) must be said to be absent.
    absent = {part: None for part, source in index.items() if source == [None, None]}
    options = {**absent, **family_class.load_options}
    pipe = _from_pretrained(config, location, revision, class_name, dtype, options)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    _set_scheduler(pipe, config, family_class)
    adapters = fuse_adapters(pipe, config.adapters)
    pipe.to(device)
    if device.type == "cuda":  # cuDNN's convolutions want their channels last, and would reorder at every layer
        for part in (getattr(pipe, family_class.denoiser_name), pipe.vae):
            part.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    return Model(pipe, family_class(pipe, device), "+".join([revision, *adapters]), device, dtype)


def _locate(config: ModelConfig) -> tuple[str, str, dict[str, Any]]:
    """Return (folder or hub id, revision, the contents of model_index.json)."""
    if config.path == "diorama":
        if not (DIORAMA_PATH / "model_index.json").exists():
            raise ConfigError("model.path: the diorama has no weights here yet; `make diorama` trains them")
        return _local(DIORAMA_PATH, config.path)
    folder = Path(config.path).expanduser()
    if folder.exists():
        if config.revision is not None:
            raise ConfigError(f"model.revision: {config.path} is a local folder, which has no revisions")
        return _local(folder, config.path)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", config.path):
        raise ConfigError(f"model.path: {config.path} is neither a folder here nor a hub id (owner/name)")
    return _hub(config)


def _local(folder: Path, name: str) -> tuple[str, str, dict[str, Any]]:
    index_path = folder / "model_index.json"
    if not index_path.is_file():
        hint = ""
        if folder.is_file() or list(folder.glob("*.safetensors")) or list(folder.glob("*.ckpt")):
            hint = "; convert a single-file checkpoint with diffusers' from_single_file and save_pretrained"
        raise ConfigError(f"model.path: {name} is not a diffusers folder (it has no model_index.json){hint}")
    try:
        index = json.loads(index_path.read_text())
    except ValueError:
        index = None
    if not isinstance(index, dict):
        raise ConfigError(f"model.path: {name}: its model_index.json is no JSON object; is the copy whole?")
    return str(folder), folder_digest(folder, index), index


def folder_digest(folder: Path, index: dict[str, Any]) -> str:
    """Return "sha256:…" over every file of the pipeline's parts, by relative name (1.8 GB/s)."""
    parts = [name for name in index if not name.startswith("_")]
    files = [folder / "model_index.json"]
    files += [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _hub(config: ModelConfig) -> tuple[str, str, dict[str, Any]]:
    where = f"model.path: {config.path}"
    try:
        path = Path(hf_hub_download(config.path, "model_index.json", revision=config.revision))
    except GatedRepoError as error:
        raise ConfigError(f"{where} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"model.revision: {config.path} has no revision {config.revision!r} on the hub") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"{where} is not on the hub (or private: set HF_TOKEN), nor a folder here") from error
    except LocalEntryNotFoundError as error:
        raise ConfigError(f"{where} is not in the local cache, and the hub cannot be reached") from error
    except EntryNotFoundError as error:
        raise ConfigError(f"{where} is not a diffusers model (it has no model_index.json)") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ConfigError(f"{where} cannot be read from the hub: {str(error).splitlines()[0]}") from error
    # The cache keeps each file under snapshots/<commit>/, so a branch or tag resolves to bytes even when offline.
    return config.path, path.parent.name, json.loads(path.read_text())


def _from_pretrained(
    config: ModelConfig, location: str, revision: str, class_name: str, dtype: torch.dtype, options: dict[str, Any]
) -> Any:
    pinned = {} if revision.startswith("sha256:") else {"revision": revision}
    try:
        return getattr(diffusers, class_name).from_pretrained(
            location, dtype=dtype, variant=config.variant, use_safetensors=True, **pinned, **options
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"model.path: {config.path} cannot be loaded from safetensors: {reason[:300]}") from error


def _set_scheduler(pipe: Any, config: ModelConfig, family: type[Family]) -> None:
    scheduler = getattr(diffusers, config.scheduler) if config.scheduler else type(pipe.scheduler)
    known = [name for name in inspect.signature(scheduler.__init__).parameters if name not in ("self", "kwargs")]
    for key in config.scheduler_options:
        if key not in known:
            raise ConfigError(
                f"model.scheduler_options.{key}: {scheduler.__name__} has no such option{nearest(key, known)}"
            )
    try:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **config.scheduler_options)
    except (ValueError, NotImplementedError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"model.scheduler_options: {scheduler.__name__} refuses them: {reason[:300]}") from error
    _check_schedule(pipe.scheduler, family)


def _check_schedule(scheduler: Any, family: type[Family]) -> None:
    """Refuse a scheduler that would integrate something else than what the model predicts."""
    name = type(scheduler).__name__
    flows = name.startswith("FlowMatch") or bool(scheduler.config.get("use_flow_sigmas"))
    if flows and not family.flow:
        raise ConfigError(f"model.scheduler: {name} integrates a flow, but {family.name} predicts noise or velocity")
    if family.flow and not flows:
        raise ConfigError(
            f"model.scheduler: {name} does not integrate the flow that {family.name} predicts; use "
            "FlowMatchEulerDiscreteScheduler, or one with scheduler_options "
            "{use_flow_sigmas: true, prediction_type: flow_prediction}"
        )
    shifts = scheduler.config.get("use_dynamic_shifting")
    if shifts and "mu" not in inspect.signature(scheduler.set_timesteps).parameters:
        raise ConfigError(
            f"model.scheduler: {name} cannot shift its schedule by the picture's size, as this model's does"
        )
