"""Our loop draws what diffusers' own pipeline draws, for the same seeds."""

import numpy as np
import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.generation.engine import Engine
from pipeline.models.load import load_model
from tests import tiny

PROMPTS = ["a cat on the beach", "a red car", "two people by a tree", "a dog at night"]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        ("DDIMScheduler", {}),
        ("DPMSolverMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("HeunDiscreteScheduler", {}),
        ("DDIMScheduler", {"eta": 0.7}),
        ("TCDScheduler", {}),  # of itself its steps put noise back; in diffusers' pipelines they do not
        ("TCDScheduler", {"eta": 0.3}),
    ],
)
def test_equals_the_diffusers_pipeline(prediction: str, scheduler: str, options: dict):
    model_config = ModelConfig(path=tiny.path(prediction), scheduler=scheduler, scheduler_options=options)
    pipe = load_model(model_config, torch.device("cpu")).pipe
    theirs = pipe(
        PROMPTS, negative_prompt=["", "", "night", ""], num_inference_steps=5, guidance_scale=4.0, width=32, height=40,
        generator=[torch.Generator().manual_seed(100 + i) for i in range(4)], output_type="np",
        eta=options.get("eta", 0.0),
    ).images  # fmt: skip
    config = tiny.config(tiny.path(prediction))
    config.model = model_config
    config.generation.steps, config.generation.guidance = 5, 4.0
    samples = [
        tiny.sample(i, prompt, negative_prompt="night" if i == 2 else "", width=32, height=40)
        for i, prompt in enumerate(PROMPTS)
    ]
    (batch,) = Engine.load(config, None, "cpu").generate(samples)
    assert batch.images.shape == (4, 40, 32, 3)
    assert np.abs(batch.images.astype(int) - (theirs * 255).round()).max() <= 1
    assert batch.images.std() > 10  # a picture, not a constant


def test_without_guidance_there_is_no_negative_branch():
    config = tiny.config(tiny.path())
    config.generation.guidance = 1.0
    engine = Engine.load(config, None, "cpu")
    pipe = load_model(config.model, torch.device("cpu")).pipe
    theirs = pipe(
        ["a cat"], num_inference_steps=3, guidance_scale=1.0, width=32, height=32, output_type="np",
        generator=[torch.Generator().manual_seed(100)],
    ).images  # fmt: skip
    (batch,) = engine.generate([tiny.sample(0, "a cat", negative_prompt="ignored")])
    assert np.abs(batch.images[0].astype(int) - (theirs[0] * 255).round()).max() <= 1
