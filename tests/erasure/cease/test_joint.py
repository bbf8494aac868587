"""CEASE in joint attention: another text carried along in the same forward, and who hears it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.config.schema import DType
from pipeline.erasure.method import Steering
from pipeline.erasure.recipe import active_methods
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.models.attention import AttentionState
from pipeline.workshop.explain import draw as explained
from tests.erasure.families import CONCEPT, apart, config, draw, engine, load, step

JOINT = ("sd3", "sd3-without-t5", "flux", "schnell")
PROMPTS = ["a cat on the beach", "a tree at night", "two cats and a tiger", "a red car"]
LISTED = {"unlisted": False}  # of a random encoder no word means anything
ALWAYS = {"look": 0.0, "threshold": 0.0, **LISTED}  # the mask is 1 everywhere from the first step on


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
    with state.batch(conditioning.embeds, [Steering()]):
        state.prepare()
        with state.forward():
            steered = driver.predict(noise, torch.tensor(500.0), conditioning, 3.5)
        assert torch.equal(plain, steered)
        assert torch.equal(plain, driver.predict(noise, torch.tensor(500.0), conditioning, 3.5))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["look and threshold 0", "a concept that is everywhere"])
@pytest.mark.parametrize("family", JOINT)
def test_switched_everywhere_it_draws_the_anchors_picture(family: str, how: str):
    if how == "look and threshold 0":
        switched, _ = engine(family, step("cease_joint", **ALWAYS))
    else:
        switched, _ = engine(family, step("cease_joint", **LISTED), concept=replace(CONCEPT, everywhere=True))
    plain = Engine(config(family), load(family), ())
    got, asked = draw(switched, PROMPTS), draw(plain, PROMPTS)
    others = draw(plain, [prompt.replace("cat", "dog") for prompt in PROMPTS], seeded=PROMPTS)
    for i in (0, 2):
        assert apart(got.images[i], others.images[i]) <= 2
        assert apart(got.images[i], asked.images[i]) > 10


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16, DType.float16])
@pytest.mark.parametrize("family", JOINT)
def test_unconcerned_samples_are_bit_identical_and_places_in_the_batch_do_not_matter(family: str, dtype: DType):
    steered, _ = engine(family, step("cease_joint", **LISTED), dtype=dtype)
    without = config(family)
    without.model.dtype = dtype
    plain = draw(Engine(without, load(family, dtype), ()), PROMPTS)
    first, second = draw(steered, PROMPTS), draw(steered, PROMPTS[::-1])
    for i in (1, 3):
        assert np.array_equal(first.images[i], plain.images[i])
    for i in (0, 2):
        assert apart(first.images[i], plain.images[i]) > 2
    assert apart(first.images, second.images[::-1]) <= (1 if dtype is DType.float32 else 8)
    assert [round(float(g), 3) for g in first.gates["cease_joint:cat"]][0::2] == [1.0, 1.0]


@pytest.mark.parametrize("family", JOINT)
def test_one_step_is_switched_too(family: str):
    settings, plain = config(family, step("cease_joint", **LISTED)), config(family)
    settings.generation.steps = plain.generation.steps = 1
    model = load(family)
    got = draw(Engine(settings, model, active_methods(settings, model)), PROMPTS)
    asked = draw(Engine(plain, load(family), ()), PROMPTS)
    assert apart(got.images[0], asked.images[0]) > 2
    assert np.array_equal(got.images[1], asked.images[1])


def test_a_look_that_leaves_no_step_is_refused():
    steps = config("flux").generation.steps
    engine("flux", step("cease_joint", **LISTED, look=(steps - 1) / steps))
    with pytest.raises(ConfigError, match=rf"a look of 1 leaves none of the {steps} steps to switch in; set options"):
        engine("flux", step("cease_joint", **LISTED, look=1.0))


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_it_says_what_it_does_and_where(family: str):
    settings, model = config(family, step("cease_joint", **LISTED)), load(family)
    (method,) = methods = active_methods(settings, model)
    assert method.explain("a cat on the beach") == [
        "“cat” means cat (1.00)",
        "inside its place the picture listens to “a dog on the beach”",
    ]
    assert method.explain("a red car")[0].startswith("no word comes near enough")
    masks = explained(settings, model, methods, "a cat on the beach").masks
    assert [step for step, _, _ in masks] == list(range(settings.generation.steps))
    assert {name.split(":")[-1].strip() for _, name, _ in masks} <= {"looks", "switches"}
    assert all(0 <= mask.min() <= mask.max() <= 1 for *_, mask in masks)
    assert max(mask.max() for *_, mask in masks) > 0.5
