"""Pictures are a function of the plan: not of where or when they are drawn, nor of what stands beside them."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.generation.pixels import finish
from pipeline.generation.text import TOGETHER
from tests import tiny

PROMPTS = ["a cat on the beach", "a red car", "a tree", "a dog at night", "a lion", "two people"]
SAMPLES = [tiny.sample(i, prompt) for i, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(tiny.config(tiny.path()), None, "cpu")


def images(engine: Engine, samples, **options) -> np.ndarray:
    return np.concatenate([batch.images for batch in engine.generate(samples, **options)])


def test_the_same_bytes_twice_and_from_another_engine(engine: Engine):
    first = images(engine, SAMPLES)
    assert np.array_equal(first, images(engine, SAMPLES))
    assert np.array_equal(first, images(Engine.load(tiny.config(tiny.path()), None, "cpu"), SAMPLES))


def test_a_short_last_batch_is_padded_and_its_padding_not_shown(engine: Engine):
    batches = list(engine.generate(SAMPLES))
    assert [len(batch.samples) for batch in batches] == [4, 2]
    assert [batch.images.shape for batch in batches] == [(4, 32, 32, 3), (2, 32, 32, 3)]
    assert all(batch.images.dtype == np.uint8 and batch.faults == [None] * len(batch.samples) for batch in batches)
    alone = images(engine, SAMPLES[4:])
    assert np.array_equal(batches[1].images, alone)


def test_a_picture_does_not_depend_on_its_place_or_its_neighbours(engine: Engine):
    straight = images(engine, SAMPLES[:4])
    assert np.array_equal(straight[::-1], images(engine, SAMPLES[:4][::-1]))
    others = [SAMPLES[0], *(dataclasses.replace(s, prompt="snow", seed=9) for s in SAMPLES[1:4])]
    assert np.array_equal(straight[0], images(engine, others)[0])


def test_seeds_replace_the_samples_own(engine: Engine):
    plain = images(engine, SAMPLES[:2])
    seeded = images(engine, SAMPLES[:2], seeds=[SAMPLES[0].seed, 5])
    assert np.array_equal(plain[0], seeded[0])
    assert not np.array_equal(plain[1], seeded[1])


def test_an_excluded_sample_is_not_drawn_and_its_neighbours_do_not_change(engine: Engine):
    plain = images(engine, SAMPLES[:4])
    (batch,) = engine.generate(SAMPLES[:4], excluded=frozenset({SAMPLES[2].key}))
    assert batch.faults == [None, None, "excluded", None]
    assert np.array_equal(plain[[0, 1, 3]], batch.images[[0, 1, 3]])
    assert not np.array_equal(plain[2], batch.images[2])


def test_each_size_has_batches_of_its_own_and_its_pictures_are_those_of_the_size_alone(engine: Engine):
    """Six of one size and two of another, by turns: three batches of four, where runs of one size would be six."""
    wide = (1, 4)
    mixed = [dataclasses.replace(SAMPLES[i % 6], key=f"{i:011d}", width=40 if i in wide else 32) for i in range(8)]
    found = list(engine.generate(mixed))
    assert [batch.images.shape for batch in found] == [(4, 32, 32, 3), (2, 32, 32, 3), (2, 32, 40, 3)]
    for batch in (found[0], found[2]):
        assert np.array_equal(batch.images, images(engine, batch.samples))


def test_every_text_is_encoded_once_however_many_pictures_batches_and_steps_it_is_for(monkeypatch):
    engine = Engine.load(tiny.config(tiny.path()), None, "cpu")
    encode, calls = engine.model.family.encode, []
    monkeypatch.setattr(engine.model.family, "encode", lambda texts: (calls.append(list(texts)), encode(texts))[1])
    samples = [tiny.sample(i, PROMPTS[i % 3], negative_prompt="rain") for i in range(12)]
    assert len(list(engine.generate(samples))) == 3
    prompts, negatives = calls  # a call for each side, padded with empty texts to the fixed size
    assert [text for text in prompts if text] == PROMPTS[:3]
    assert [text for text in negatives if text] == ["rain"] * 3  # pairs are told apart, not texts
    assert len(prompts) == len(negatives) == TOGETHER


def test_nan_is_blamed_on_the_sample_it_is_in():
    model_engine = Engine.load(tiny.config(tiny.path()), None, "cpu")
    encode = model_engine.model.family.encode

    def poisoned(texts):
        conditioning = encode(texts)
        for row, text in enumerate(texts):
            if text == "a tree":
                conditioning.embeds[row] = float("nan")
        return conditioning

    model_engine.model.family.encode = poisoned  # type: ignore[method-assign]
    plain = images(Engine.load(tiny.config(tiny.path()), None, "cpu"), SAMPLES[:4])
    (batch,) = model_engine.generate(SAMPLES[:4])
    assert batch.faults == [None, None, "nan", None]
    assert np.array_equal(plain[[0, 1, 3]], batch.images[[0, 1, 3]])


def test_pixels_and_their_faults():
    pixels = torch.zeros(4, 3, 8, 8)
    pixels[0, :, 0, 0], pixels[0, :, 1, 1] = -2.0, 2.0
    pixels[1, 0, 0, 0] = float("nan")
    pixels[3] += torch.linspace(0, 0.01, 64).view(8, 8)
    pictures, finite, blank = finish(pixels)
    assert pictures.shape == (4, 8, 8, 3)
    assert pictures[0, 0, 0].tolist() == [0] * 3
    assert pictures[0, 1, 1].tolist() == [255] * 3
    assert pictures[0, 5, 5].tolist() == [128] * 3
    assert finite.tolist() == [True, False, True, True]
    assert blank.tolist()[0] is False
    assert blank.tolist()[2:] == [True, True]


def test_a_size_that_cannot_be_made_is_refused_before_any_work():
    config = tiny.config(tiny.path())
    config.generation.size = [32, 30]
    with pytest.raises(ConfigError, match=r"generation.size: height 30 is not a multiple of 4"):
        Engine.load(config, None, "cpu")


def test_pictures_up_to_the_models_own_size_are_decoded_whole_and_larger_ones_in_tiles_only_where_asked_for():
    """The tiny decoder was made for 32x32 pixels, so a picture of 64x64 is nine tiles that overlap."""
    plain = Engine.load(tiny.config(tiny.path()), None, "cpu")
    config = tiny.config(tiny.path())
    config.generation.vae_tiling = True
    tiled = Engine.load(config, None, "cpu")
    large = [dataclasses.replace(sample, width=64, height=64) for sample in SAMPLES[:4]]
    assert np.array_equal(images(plain, SAMPLES[:4]), images(tiled, SAMPLES[:4]))
    whole, seamed = images(plain, large).astype(int), images(tiled, large).astype(int)
    assert whole.shape == seamed.shape == (4, 64, 64, 3)
    apart = np.abs(whole - seamed)
    assert apart.max() > 0
    assert apart.mean() < whole.std() / 4, "the same pictures"
    # An engine over a model that another has used sets it as its own config says.
    assert np.array_equal(images(Engine(plain.config, tiled.model, ()), large), whole)


def test_more_steps_than_the_scheduler_can_do_are_refused_before_any_work():
    config = tiny.config(tiny.path())
    config.model.scheduler, config.generation.steps = "LCMScheduler", 60
    with pytest.raises(ConfigError, match=r"generation.steps: is 60, which LCMScheduler cannot do"):
        Engine.load(config, None, "cpu")
