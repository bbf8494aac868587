"""SLD against diffusers' own (deprecated) pipeline, and its presets."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig, StableDiffusionPipelineSafe

from pipeline.config.schema import ConceptConfig, ErasureConfig, StepConfig
from pipeline.erasure.methods.sld import PRESETS, SLDOptions
from pipeline.erasure.recipe import active_methods
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.models.load import load_model
from tests import tiny
from tests.erasure.steering import engine

PROMPTS = ["a cat on the beach", "a red car", "two people by a tree", "a kitten at night"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "prediction"), [*((preset, "epsilon") for preset in PRESETS), ("strong", "v_prediction")]
)
def test_draws_what_diffusers_safe_pipeline_draws(preset, prediction):
    """Whole runs, per preset, the warmup moved into 6 steps; pictures equal to within rounding to uint8."""
    config = tiny.config(tiny.path(prediction))
    config.generation.steps, config.generation.guidance = 6, 4.0
    options = {"preset": preset, "warmup": 1}
    listed = [ConceptConfig(name="cat", aliases=["kitten"])]
    config.erasure = ErasureConfig(concepts=listed, recipe=[StepConfig(method="sld", options=options)])
    model = load_model(config.model, torch.device("cpu"))
    theirs = StableDiffusionPipelineSafe(**model.pipe.components, requires_safety_checker=False)
    theirs.safety_concept = "cat, kitten"
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        PROMPTS, negative_prompt=["", "", "night", ""], num_inference_steps=6, guidance_scale=4.0, width=32, height=32,
        generator=[torch.Generator().manual_seed(100 + i) for i in range(4)], output_type="np",
        **{**getattr(SafetyConfig, preset.upper()), "sld_warmup_steps": 1},
    ).images  # fmt: skip
    samples = [tiny.sample(i, p, negative_prompt="night" if i == 2 else "") for i, p in enumerate(PROMPTS)]
    (batch,) = Engine(config, model, active_methods(config, model)).generate(samples)
    assert np.abs(batch.images.astype(int) - (expected * 255).round()).max() <= 1
    (plain,) = Engine(config, model, ()).generate(samples)
    assert np.abs(batch.images.astype(int) - plain.images).mean() > 1
    assert ((batch.gates["sld:all"] > 0) & (batch.gates["sld:all"] <= 1)).all()


def test_presets_are_those_of_diffusers():
    for name, values in PRESETS.items():
        theirs = getattr(SafetyConfig, name.upper())
        order = ("warmup_steps", "guidance_scale", "threshold", "momentum_scale", "mom_beta")
        assert values == tuple(theirs[f"sld_{key}"] for key in order)


def test_options_change_a_preset():
    assert SLDOptions(preset="max", warmup=3, momentum_beta=0.0).values == (3, 5000.0, 1.0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "mediun"}, "did you mean 'medium'"),
        ({"warmup": -1}, "warmup is -1; expected at least 0"),
        ({"momentum_beta": 2.0}, "momentum_beta is 2; expected 0 to 1"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        SLDOptions(**options)


def test_a_warmup_that_never_ends_is_refused():
    with pytest.raises(ConfigError, match=r"a warmup of 10 steps leaves none of the 3; set options\.warmup lower"):
        engine(StepConfig(method="sld"))
