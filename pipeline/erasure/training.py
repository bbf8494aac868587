"""Trains what a step of a recipe has to have trained, and keeps the result for the runs.

Unit of work: one iteration. Killed at any point, it goes on from the last checkpoint and ends with the same bytes (in
the same environment). Knows nothing of losses (the method's) nor of names (``trained.py``).
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from pipeline.config.schema import Config
from pipeline.erasure.method import Training
from pipeline.erasure.steps import Step
from pipeline.erasure.trained import checkpoint_path, read_trained, result_path
from pipeline.errors import ConfigError, named_in_errors
from pipeline.files import replace_synced
from pipeline.models.load import Model
from pipeline.terminal import printable

EVERY = 25  # iterations between checkpoints


def train_missing(
    config: Config, model: Model, steps: Sequence[Step], i: int, checkpoint_every: int = EVERY
) -> dict[str, Tensor]:
    """Return the trained weights of step *i* of a recipe; train them first where that has not been done."""
    path = result_path(config, model, steps, i)
    if not path.exists():
        _train(path, steps[i], model, checkpoint_every)
    return read_trained(config, model, steps, i)


def _train(path: Path, step: Step, model: Model, every: int) -> None:
    method, checkpoint = step.build(model), checkpoint_path(path)
    with named_in_errors(step.where):
        training = method.train()
    begin = _resume(step, training, checkpoint, path.name) if checkpoint.exists() else 0
    _make_folder(path.parent)
    names = ", ".join(concept.name for concept in step.concepts)
    with tqdm(initial=begin, total=training.iterations, desc=printable(f"{step.label}: {names}"), unit="it") as bar:
        for i in range(begin, training.iterations):
            with named_in_errors(step.where):
                loss = training.iterate(i)
            if not math.isfinite(loss):
                raise ConfigError(f"{step.label}: the loss is {loss} at iteration {i}; {training.advice}")
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            if (i + 1) % every == 0 and i + 1 < training.iterations:
                _finite(step, training, i)
                with named_in_errors(step.where):
                    state = training.state()
                _write(checkpoint, save(_plain(state), {"iterations": str(i + 1), "result": path.name}))
    _write(path, save(_plain(_finite(step, training, training.iterations - 1))))
    checkpoint.unlink(missing_ok=True)


def _finite(step: Step, training: Training, i: int) -> dict[str, Tensor]:
    """Return the weights after iteration *i*, which are refused where they are not finite: a step too long shows in the
    loss only at the next one, and what is written must be sound before that."""
    with named_in_errors(step.where):
        tensors = training.tensors()
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ConfigError(f"{step.label}: {name} is not finite after iteration {i}; {training.advice}")
    return tensors


def _resume(step: Step, training: Training, checkpoint: Path, result: str) -> int:
    """Take up the state in *checkpoint*, if it is one on the way to the file *result*; return the iterations done."""
    try:
        with safe_open(checkpoint, framework="pt") as file:
            told = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if told.get("result") != result:
            raise ConfigError(f"it was written for {told.get('result', 'something else')}")
        with named_in_errors(step.where):
            training.restore(state)
        return int(told["iterations"])
    except (OSError, SafetensorError, ConfigError) as error:
        raise ConfigError(f"{checkpoint}: is damaged ({error}); delete it to begin anew") from error


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _make_folder(folder: Path) -> None:
    """Before there is anything to lose by it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"erasure.finetuned: {folder} cannot be made: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, whatever dies; ``ConfigError`` where it cannot be written."""
    try:
        replace_synced(path, data, path.with_name(f".{path.name}.{os.getpid()}"))
    except OSError as error:
        raise ConfigError(f"erasure.finetuned: {path} cannot be written: {error.strerror}") from error
