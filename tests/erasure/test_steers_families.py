"""Conditions and steers beyond Stable Diffusion: what works there acts, what cannot is refused with the reason."""

import functools

import numpy as np
import pytest
import torch

from pipeline.config.schema import ConceptConfig, ErasureConfig, StepConfig
from pipeline.erasure.methods.adavd import AdaVDOptions
from pipeline.erasure.recipe import active_methods, compile_recipe
from pipeline.errors import ConfigError
from pipeline.generation.engine import Batch, Engine
from pipeline.models.load import load_model
from tests import tiny, tiny_families
from tests.erasure.methods.test_adavd import changed_values
from tests.erasure.steering import BATCH, draw
from tests.erasure.test_steers import ORDER, STEPS

FORCED = {**STEPS, "semantic_surgery": StepConfig(method="semantic_surgery", options={"beta": 1.0})}  # all concerned
CASES = [
    *(("sdxl", name) for name in FORCED),
    *(("sd3", name) for name in ("semantic_surgery", "sld", "negative_prompt")),
    ("flux", "semantic_surgery"),
]


def engine(family: str, *steps: StepConfig) -> Engine:
    listed = [ConceptConfig(name="cat", aliases=["kitten"], anchor="dog", preserve=["tiger"])]
    config = tiny.config(tiny_families.path(family), erasure=ErasureConfig(concepts=listed, recipe=list(steps)))
    model = load_model(config.model, torch.device("cpu"))
    compile_recipe(config, model)
    return Engine(config, model, active_methods(config, model))


@functools.cache
def plain(family: str) -> Batch:
    return draw(engine(family))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), CASES)
def test_it_acts_and_a_sample_does_not_depend_on_its_place_in_the_batch(family, name):
    steered = engine(family, FORCED[name])
    here, there = draw(steered), draw(steered, order=ORDER)
    assert not any(here.faults)
    assert not np.array_equal(here.images[2], plain(family).images[2])  # "two kittens and a tiger"
    for place, i in enumerate(ORDER):
        assert np.array_equal(here.images[i], there.images[place])
        for gate, scores in here.gates.items():
            assert scores[i] == there.gates[gate][place]


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_semantic_surgery_leaves_prompts_below_its_threshold_bit_identical(family):
    options = {"gamma": 1.0, "beta": 0.0}  # strengths short of saturation
    scores = draw(engine(family, StepConfig(method="semantic_surgery", options=options))).gates["semantic_surgery:cat"]
    threshold = float(np.sort(scores)[1:3].mean())  # two of four prompts reach it
    steered = draw(engine(family, StepConfig(method="semantic_surgery", options={**options, "threshold": threshold})))
    assert ((steered.images != plain(family).images).any((1, 2, 3)) == (scores >= threshold)).all()


def test_adavd_leaves_prompts_below_its_threshold_bit_identical_on_sdxl():
    model = load_model(tiny.config(tiny_families.path("sdxl")).model, torch.device("cpu"))
    scores = changed_values(model, AdaVDOptions(projection="gated"))[1].amax(0).numpy()  # (B,), of any layer
    tau = float(np.sort(scores)[1:3].mean())
    steered = draw(engine("sdxl", StepConfig(method="adavd", options={"projection": "gated", "tau": tau})))
    assert ((steered.images != plain("sdxl").images).any((1, 2, 3)) == (scores >= tau)).all()


def test_safree_leaves_prompts_without_triggers_bit_identical_on_sdxl():
    prompts = (*BATCH[:3], "")
    steered = draw(engine("sdxl", STEPS["safree"]), prompts=prompts)
    triggered = steered.gates["safree:all"] > 0
    assert triggered.tolist()[-2:] == [True, False]
    changed = (steered.images != draw(engine("sdxl"), prompts=prompts).images).any((1, 2, 3))
    assert (changed == triggered).all()


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
        engine(family, StepConfig(method=method))
