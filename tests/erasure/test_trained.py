"""Where a training's result lies: elsewhere as soon as anything that it depends on is another."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.config.schema import StepConfig
from pipeline.erasure.recipe import recipe_steps
from pipeline.erasure.trained import result_path
from pipeline.errors import ConfigError
from tests.erasure.conftest import config


def place(settings, model) -> Path:
    steps = recipe_steps(settings, model.family)
    return result_path(settings, model, steps, len(steps) - 1)


def test_it_depends_on_the_content_of_a_file_that_an_earlier_step_takes(model, tmp_path: Path):
    path = tmp_path / "erased.safetensors"
    settings = config(StepConfig(method="weights", options={"path": str(path)}), StepConfig(method="esd"))
    places = []
    for value in (0.0, 1.0, 0.0):
        save_file({"layer.weight": torch.full((2, 2), value)}, path)
        places.append(place(settings, model))
    assert places[0] == places[2] != places[1]
    path.unlink()
    with pytest.raises(ConfigError, match=r"^weights: .* is (not here, and HF_HUB_OFFLINE|neither here nor a hub id)"):
        place(settings, model)


def test_it_depends_on_the_models_variant(model):
    settings = config(StepConfig(method="esd"))
    other = replace(settings, model=replace(settings.model, variant="non_ema"))
    assert place(settings, model) != place(other, model)


def test_it_depends_on_no_step_after_it_and_on_none_that_acts_while_sampling(model):
    alone, more = config(StepConfig(method="esd")), config(StepConfig(method="cease"), StepConfig(method="esd"))
    assert place(alone, model).name == place(more, model).name
    after = config(StepConfig(method="esd"), StepConfig(method="uce"))
    assert result_path(after, model, recipe_steps(after, model.family), 0) == place(alone, model)
