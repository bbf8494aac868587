"""CEASE in joint attention: another text carried along in the same forward, and who hears it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.erasure.method import Steering
from pipeline.generation.engine import Engine
from pipeline.models.attention import AttentionState
from tests.erasure.families import CONCEPT, apart, config, draw, engine, load, step

JOINT = ("sd3", "sd3-without-t5", "flux", "schnell")
PROMPTS = ["a cat on the beach", "a tree at night", "two cats and a tiger", "a red car"]
ALWAYS = {"look": 0.0, "threshold": 0.0}  # the mask is 1 everywhere from the first step on


@pytest.mark.parametrize("family", ["sdxl", *JOINT])
@torch.no_grad()
def test_unsteered_is_bit_identical_to_diffusers(family: str):
    driver = load(family).family
    conditioning = driver.encode(["a cat on the beach", "a tree"])
    noise = torch.randn((2, *driver.latent_shape(32, 48)), generator=torch.Generator().manual_seed(0))
    plain = driver.predict(noise, torch.tensor(500.0), conditioning, 3.5)
    state = AttentionState()
    layers = driver.attach(state)
    assert [layer.index for layer in layers] == list(range(len(layers)))
    assert torch.equal(plain, driver.predict(noise, torch.tensor(500.0), conditioning, 3.5))
    with state.batch(conditioning.embeds, [], [], [Steering()]):
        assert torch.equal(plain, driver.predict(noise, torch.tensor(500.0), conditioning, 3.5))


@pytest.mark.parametrize("how", ["look and threshold 0", "a concept that is everywhere"])
@pytest.mark.parametrize("family", JOINT)
def test_switched_everywhere_it_draws_the_anchors_picture(family: str, how: str):
    if how == "look and threshold 0":
        switched, _ = engine(family, step("cease_joint", **ALWAYS))
    else:
        switched, _ = engine(family, step("cease_joint"), concept=replace(CONCEPT, everywhere=True))
    plain = Engine(config(family), load(family), ())
    got, asked = draw(switched, PROMPTS), draw(plain, PROMPTS)
    others = draw(plain, [prompt.replace("cat", "dog") for prompt in PROMPTS], seeded=PROMPTS)
    for i in (0, 2):
        assert apart(got.images[i], others.images[i]) <= 2
        assert apart(got.images[i], asked.images[i]) > 10


@pytest.mark.parametrize("family", JOINT)
def test_unconcerned_samples_are_bit_identical_and_places_in_the_batch_do_not_matter(family: str):
    steered, _ = engine(family, step("cease_joint"))
    plain = draw(Engine(config(family), load(family), ()), PROMPTS)
    first, second = draw(steered, PROMPTS), draw(steered, PROMPTS[::-1])
    for i in (1, 3):
        assert np.array_equal(first.images[i], plain.images[i])
    for i in (0, 2):
        assert apart(first.images[i], plain.images[i]) > 2
    assert apart(first.images, second.images[::-1]) <= 1
    assert [round(float(g), 3) for g in first.gates["cease_joint:cat"]][0::2] == [1.0, 1.0]
