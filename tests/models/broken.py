"""Copies of tiny models, to be spoilt in the ways in which people's are, and what loading them says."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.load import Model, load_model
from tests import tiny, tiny_families


def copy(family: str, folder: Path) -> Path:
    source = tiny.path() if family == "sd" else tiny_families.path(family)
    return Path(shutil.copytree(source, folder / family))


def load(folder: Path, **options: Any) -> Model:
    return load_model(ModelConfig(path=str(folder), **options), torch.device("cpu"))


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def settings(folder: Path, file: str, **changed: Any) -> None:
    """Change values of a JSON file; ``...`` takes one out."""
    path = folder / file
    values = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def scheduler(folder: Path, name: str, **changed: Any) -> None:
    """Let the model's own scheduler be the one called *name*."""
    settings(folder, "scheduler/scheduler_config.json", _class_name=name, **changed)
    settings(folder, "model_index.json", scheduler=["diffusers", name])


def part(folder: Path, name: str, network: Any) -> None:
    """Put another network in the place of a part."""
    shutil.rmtree(folder / name)
    network.save_pretrained(folder / name)
    library = type(network).__module__.partition(".")[0]
    settings(folder, "model_index.json", **{name: [library, type(network).__name__]})
