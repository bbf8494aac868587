"""`lacuna finetune`: trains the steps of a recipe that have to be trained, and keeps the results for the runs.

Unit of work: one iteration. Killed at any point, the same command goes on from the last checkpoint and ends with the
same bytes (in the same environment). Knows nothing of losses (the method's) nor of names (``erasure/trained.py``).
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
from pipeline.erasure.method import Step
from pipeline.erasure.recipe import compile_recipe
from pipeline.erasure.trained import checkpoint_path, read_trained, result_path
from pipeline.errors import ConfigError
from pipeline.models.load import Model, load_model
from pipeline.prepare import resolve_device

EVERY = 25  # iterations between checkpoints


def finetune(config: Config, checkpoint_every: int = EVERY) -> list[Path]:
    """Train every step of the recipe that is not trained yet, in order; return the files of all that are trained.

    Each is trained on the model as the steps before it left it, and has to pass the self-check, as every edit has.
    Raises ``ConfigError`` where no step has to be trained.
    """
    device = resolve_device(config.cluster.device)
    torch.set_num_threads(config.cluster.threads_per_worker)
    files: list[Path] = []

    def trained(config: Config, model: Model, steps: Sequence[Step], i: int) -> dict[str, Tensor]:
        path = result_path(config, model, steps, i)
        files.append(path)
        if not path.exists():
            _train(path, steps[i], model, checkpoint_every)
        return read_trained(config, model, steps, i)

    compile_recipe(config, load_model(config.model, torch.device(device)), trained)
    if not files:
        raise ConfigError("erasure.recipe: no step of it has to be trained (esd would have to)")
    return files


def _train(path: Path, step: Step, model: Model, every: int) -> None:
    training, checkpoint = step.build(model).train(), checkpoint_path(path)
    begin = 0
    if checkpoint.exists():
        begin, state = _read_checkpoint(checkpoint)
        training.restore(state)
    names = ", ".join(concept.name for concept in step.concepts)
    with tqdm(initial=begin, total=training.iterations, desc=f"{step.label}: {names}", unit="it") as bar:
        for i in range(begin, training.iterations):
            loss = training.iterate(i)
            if not math.isfinite(loss):
                raise ConfigError(f"{step.label}: the loss is {loss} at iteration {i}; lower the option lr")
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            if (i + 1) % every == 0 and i + 1 < training.iterations:
                _write(checkpoint, save(_plain(training.state()), {"iterations": str(i + 1)}))
    _write(path, save(_plain(training.tensors())))
    checkpoint.unlink(missing_ok=True)


def _read_checkpoint(path: Path) -> tuple[int, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.metadata()["iterations"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ConfigError(f"{path}: is damaged ({error}); delete it to begin anew") from error


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, whatever dies; ``ConfigError`` where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"erasure.finetuned: {path} cannot be written: {error.strerror}") from error
