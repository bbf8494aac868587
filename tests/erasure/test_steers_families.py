"""Conditions and steers beyond Stable Diffusion: what works there acts, what cannot is refused with the reason."""

import numpy as np
import pytest
import torch

from pipeline.config.schema import ConceptConfig, ErasureConfig, StepConfig
from pipeline.erasure.recipe import active_methods, compile_recipe
from pipeline.errors import ConfigError
from pipeline.generation.engine import Batch, Engine
from pipeline.models.load import load_model
from tests import tiny, tiny_families
from tests.erasure.steering import draw
from tests.erasure.test_steers import STEPS


def drawn(family: str, *steps: StepConfig) -> Batch:
    listed = [ConceptConfig(name="cat", aliases=["kitten"], anchor="dog", preserve=["tiger"])]
    config = tiny.config(tiny_families.path(family), erasure=ErasureConfig(concepts=listed, recipe=list(steps)))
    model = load_model(config.model, torch.device("cpu"))
    compile_recipe(config, model)
    return draw(Engine(config, model, active_methods(config, model)))


def test_all_work_on_sdxl():
    plain = drawn("sdxl")
    for step in STEPS.values():
        steered = drawn("sdxl", step)
        assert not any(steered.faults)
        assert not np.array_equal(plain.images[2], steered.images[2])  # "two kittens and a tiger"


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_semantic_surgery_works_where_attention_is_joint(family):
    plain = drawn(family)
    always = drawn(family, StepConfig(method="semantic_surgery", options={"beta": 1.0}))
    never = drawn(family, StepConfig(method="semantic_surgery", options={"beta": -1.0}))
    assert not np.array_equal(plain.images[0], always.images[0])
    assert np.array_equal(plain.images, never.images)


@pytest.mark.parametrize(
    ("family", "method", "reason"),
    [
        ("sd3", "adavd", "joint attention"),
        ("flux", "safree", "joint attention"),
        ("flux", "sld", "no negative branch"),
        ("flux", "negative_prompt", "no negative branch"),
    ],
)
def test_what_cannot_work_is_refused_by_name_with_the_reason(family, method, reason):
    with pytest.raises(ConfigError, match=rf"'{method}' does not work on .*{reason}"):
        drawn(family, StepConfig(method=method))
