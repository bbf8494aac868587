"""Where the results of `lacuna finetune` lie, and how a run finds its own.

A result is a safetensors file in the folder ``erasure.finetuned``, named by a fingerprint of all that it depends on:
the model, the steps before it, its concepts and options. So every run whose config says the same finds it, wherever it
writes its corpus, and a changed option never meets an old result. Knows nothing of training.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pipeline.config.schema import Config
from pipeline.erasure.steps import Step
from pipeline.erasure.tensors import check_tensors
from pipeline.errors import ConfigError
from pipeline.models.load import Model
from pipeline.paths import folder_on_disk

VERSION = 4  # of what training does with a config: raised by hand when the same config gives other weights

Trained = Callable[[Config, Model, Sequence[Step], int], dict[str, Tensor]]


def read_trained(config: Config, model: Model, steps: Sequence[Step], i: int) -> dict[str, Tensor]:
    """Return the trained weights of step *i*; ``ConfigError`` where `lacuna finetune` has not made them."""
    path = result_path(config, model, steps, i)
    if not path.exists():
        begun = " to its end" if checkpoint_path(path).exists() else ""
        raise ConfigError(
            f"erasure.recipe[{i}]: {steps[i].label} has not been trained{begun} for this model, concepts and options; "
            f"run `lacuna finetune` with the same config first ({path} is missing)"
        )
    try:
        tensors = load(path.read_bytes())
        check_tensors(model, tensors)
    except (OSError, SafetensorError, ConfigError) as error:
        raise ConfigError(f"{path}: is damaged ({error}); delete it and run `lacuna finetune` again") from error
    return tensors


def result_path(config: Config, model: Model, steps: Sequence[Step], i: int) -> Path:
    """Return where the result of step *i* lies, or is to lie."""
    digest = hashlib.sha256(json.dumps(_description(config, model, steps, i), sort_keys=True).encode()).hexdigest()
    return folder_on_disk(config.erasure.finetuned) / f"{steps[i].label}-{digest[:16]}.safetensors"


def checkpoint_path(result: Path) -> Path:
    """Return where the state of a training lies while it goes on."""
    return result.with_suffix(".checkpoint")


def _description(config: Config, model: Model, steps: Sequence[Step], i: int) -> dict[str, Any]:
    """All that a result depends on besides the environment. (The weights that learn are float32 whatever the dtype, but
    the rest of the model is not; and pictures to learn from are sampled by the scheduler.)"""
    return {
        "version": VERSION,
        "model": model.revision,
        "variant": config.model.variant,  # a folder's revision is that of the files of all its variants
        "dtype": str(model.dtype),
        "scheduler": [config.model.scheduler, config.model.scheduler_options],
        "adapters": [adapter.weight for adapter in config.model.adapters],
        "steps": [
            {
                "method": s.name,
                "concepts": [asdict(c) for c in s.concepts],
                "options": asdict(s.options),
                # Solved weights themselves are not in it: they differ by the device in their last bits.
                "files": [_sha256(file) for file in s.files()],
            }
            for s in steps[: i + 1]
            if s.edits
        ],
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
