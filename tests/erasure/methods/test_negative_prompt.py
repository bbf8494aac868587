"""Negative prompt against diffusers' own."""

import numpy as np
import torch

from pipeline.config.schema import StepConfig
from tests import tiny
from tests.erasure.steering import BATCH, engine


def test_draws_what_diffusers_draws_with_the_words_before_the_samples_own():
    own = engine(StepConfig(method="negative_prompt"), concepts=("cat", "tree"), guidance=4.0)
    expected = own.model.pipe(
        list(BATCH), negative_prompt=["cat, tree, kitten"] * 3 + ["cat, tree, kitten, snow"], num_inference_steps=3,
        guidance_scale=4.0, width=32, height=32, output_type="np",
        generator=[torch.Generator().manual_seed(100 + i) for i in range(4)],
    ).images  # fmt: skip
    samples = [tiny.sample(i, p, negative_prompt="snow" if i == 3 else "") for i, p in enumerate(BATCH)]
    (batch,) = own.generate(samples)
    assert np.abs(batch.images.astype(int) - (expected * 255).round()).max() <= 1
