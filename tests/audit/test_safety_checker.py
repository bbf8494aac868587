"""Stable Diffusion's safety checker: flags what diffusers' own class flags."""

import numpy as np
import pytest
import torch

from pipeline.audit.safety_checker import THRESHOLD
from pipeline.concepts.term import Term
from tests import tiny_eyes

NUDITY = Term("nudity")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_eyes.safety_checker(tmp_path_factory.mktemp("checker"))


def test_it_keeps_what_every_detector_promises(folder):
    tiny_eyes.check(tiny_eyes.load("safety_checker", model=str(folder), batch=3), [NUDITY, NUDITY])


def test_it_flags_what_diffusers_flags_and_tells_by_how_much(folder):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    detector = tiny_eyes.load("safety_checker", model=str(folder))
    images = tiny_eyes.pictures(60, 40, 40)
    pixels = detector.preparation(images, torch.device("cpu"), torch.float32)["pixel_values"]
    network = StableDiffusionSafetyChecker.from_pretrained(folder)
    _, expected = network(pixels, np.zeros((60, 1, 1, 3)))
    scores = detector.score(images, [NUDITY])[:, 0]
    assert (scores >= THRESHOLD).tolist() == expected
    assert 5 < sum(expected) < 55
    assert detector.threshold(NUDITY) == THRESHOLD
    assert THRESHOLD > 0.5


def test_it_judges_nudity_or_what_the_list_calls_it(folder):
    detector = tiny_eyes.load("safety_checker", model=str(folder))
    assert detector.knows(NUDITY)
    assert detector.knows(Term("bare", ("bare", "nudity")))
    assert not detector.knows(Term("violence"))
    assert tiny_eyes.load("safety_checker", model=str(folder), concepts=["nsfw"]).knows(Term("nsfw"))
    assert {path.name for path in detector.files()} == {
        "config.json", "model.safetensors", "preprocessor_config.json"
    }  # fmt: skip


def test_bad_options_give_one_line(folder, tmp_path):
    assert "concepts: is empty" in tiny_eyes.one_line("safety_checker", model=str(folder), concepts=[])
    clip = str(tiny_eyes.clip(tmp_path))
    assert "is a CLIPModel; expected a StableDiffusionSafetyChecker" in tiny_eyes.one_line("safety_checker", model=clip)
