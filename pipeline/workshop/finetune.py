"""`lacuna finetune`: trains the steps of a recipe that have to be trained, and keeps the results for the runs.

Killed at any point, the same command goes on. How a step is trained is ``erasure/training.py``.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pipeline.config.schema import Config
from pipeline.erasure.steps import Step
from pipeline.erasure.trained import result_path
from pipeline.erasure.training import EVERY, train_missing
from pipeline.errors import ConfigError
from pipeline.models.load import Model
from pipeline.session import Session


def finetune(config: Config, checkpoint_every: int = EVERY) -> list[Path]:
    """Train every step of the recipe that is not trained yet, in order; return the files of all that are trained.

    Each is trained on the model as the steps before it left it, and has to pass the self-check, as every edit has.
    Raises ``ConfigError`` where no step has to be trained.
    """
    files: list[Path] = []

    def trained(config: Config, model: Model, steps: Sequence[Step], i: int) -> dict[str, Tensor]:
        files.append(result_path(config, model, steps, i))
        return train_missing(config, model, steps, i, checkpoint_every)

    Session(config).compile(trained)
    if not files:
        raise ConfigError("erasure.recipe: no step of it has to be trained (esd would have to)")
    return files
