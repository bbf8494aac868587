"""On every family our loop draws what diffusers' own pipeline draws, for the same seeds."""

import functools

import numpy as np
import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.models.load import Model, load_model
from tests import masked, tiny, tiny_families

PROMPTS = ["a cat on the beach", "a red car", "two people by a tree"]
NEGATIVES = ["", "", "night"]


def theirs(model: Model, guidance: float, **call) -> np.ndarray:
    """Draw with diffusers' own loop; to be called before ours, which attaches itself to the model."""
    generators = [torch.Generator().manual_seed(100 + i) for i in range(len(PROMPTS))]
    images = model.pipe(
        PROMPTS, num_inference_steps=3, guidance_scale=guidance, width=32, height=48, generator=generators,
        output_type="np", **call,
    ).images  # fmt: skip
    return (images * 255).round()


def ours(model: Model, guidance: float, negatives=("", "", "")) -> np.ndarray:
    config = tiny.config("unused")
    config.generation.guidance, config.generation.batch_size = guidance, len(PROMPTS)
    config.generation.size = [32, 48]
    samples = [
        tiny.sample(i, prompt, negative_prompt=negative, width=32, height=48)
        for i, (prompt, negative) in enumerate(zip(PROMPTS, negatives, strict=True))
    ]
    (batch,) = Engine(config, model, ()).generate(samples)
    assert batch.images.std() > 10  # a picture, not a constant
    return batch.images.astype(int)


def load(family: str, **options) -> Model:
    return load_model(ModelConfig(path=tiny_families.path(family), **options), torch.device("cpu"))


@pytest.mark.parametrize(
    ("family", "scheduler", "options", "guidance"),
    [
        ("sdxl", None, {}, 5.0),
        ("sdxl", "DPMSolverMultistepScheduler", {}, 5.0),
        ("sdxl", None, {}, 1.0),
        ("sd3", None, {}, 4.0),
        ("sd3", "FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, 4.0),
        ("sd3", "UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, 4.0),
        ("sd3-without-t5", None, {}, 1.0),
        ("flux", None, {}, 3.5),
        ("schnell", None, {}, 0.0),
    ],
)
def test_equals_the_diffusers_pipeline(family: str, scheduler: str | None, options: dict, guidance: float):
    model = load(family, scheduler=scheduler, scheduler_options=options)
    call = {"max_sequence_length": tiny_families.T5_LENGTH} if family in ("sd3", "flux", "schnell") else {}
    expected = theirs(model, guidance, **call)
    assert np.abs(ours(model, guidance) - expected).max() <= 1


def test_negative_prompts():
    model = load("sd3")
    expected = theirs(model, 4.0, negative_prompt=NEGATIVES, max_sequence_length=tiny_families.T5_LENGTH)
    assert np.abs(ours(model, 4.0, NEGATIVES) - expected).max() <= 1


def test_sdxl_takes_no_negative_prompt_as_zeros_and_another_as_it_is():
    model = load("sdxl")
    zeros, given = theirs(model, 5.0), theirs(model, 5.0, negative_prompt=NEGATIVES)
    assert np.abs(zeros[:2] - given[:2]).max() > 1
    got = ours(model, 5.0, NEGATIVES)
    assert np.abs(got[:2] - zeros[:2]).max() <= 1
    assert np.abs(got[2] - given[2]).max() <= 1


def test_a_negative_prompt_is_refused_where_there_is_no_negative_branch():
    config = tiny.config("unused")
    config.generation.negative_prompt = "night"
    with pytest.raises(ConfigError, match=r"negative_prompt: FLUX\.1 takes none: its guidance is distilled"):
        Engine(config, load("flux"), ())


def test_a_model_that_masks_its_text_draws_what_diffusers_draws():
    model = load_model(ModelConfig(path=tiny.path()), torch.device("cpu"))
    whole = theirs(model, 5.0)
    forward, mask = model.pipe.unet.forward, masked.seen(model.pipe.tokenizer, [*NEGATIVES[:1] * 3, *PROMPTS])
    model.pipe.unet.forward = functools.partial(forward, encoder_attention_mask=mask)
    expected = theirs(model, 5.0)
    assert np.abs(whole - expected).max() > 10
    assert np.abs(ours(model, 5.0) - expected).max() <= 1
