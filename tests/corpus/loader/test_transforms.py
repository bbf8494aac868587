"""What transforms are made of, on tensors and Pillow images alike."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.corpus.loader import transforms
from pipeline.errors import ConfigError

RAMP = np.stack([np.add.outer(np.arange(40) * 3, np.arange(60) * 2).astype(np.uint8)] * 3, 2)


@pytest.fixture(params=["tensor", "pil"])
def image(request):
    """A ramp of 40x60."""
    return torch.from_numpy(RAMP) if request.param == "tensor" else Image.fromarray(RAMP)


def test_a_picture_is_resized_and_cropped(image):
    assert transforms.size_of(image) == (40, 60)
    small = transforms.resize(image, (20, 30))
    assert transforms.size_of(small) == (20, 30)
    assert np.abs(np.asarray(small)[2:-2, 2:-2].astype(int) - RAMP[::2, ::2][2:-2, 2:-2]).max() <= 4
    assert transforms.resize(image, (40, 60)) is image
    assert transforms.size_of(transforms.resize_shorter(image, 10)) == (10, 15)
    assert (np.asarray(transforms.crop(image, (10, 20))) == RAMP[15:25, 20:40]).all()
    assert transforms.size_of(transforms.fit(image, (16, 16))) == (16, 16)
    assert transforms.size_of(transforms.fit(image, (80, 16))) == (80, 16)


def test_a_crop_from_anywhere_is_drawn_by_torch(image):
    torch.manual_seed(0)
    corners = {int(np.asarray(transforms.crop(image, (8, 8), random=True))[0, 0, 0]) for _ in range(40)}
    torch.manual_seed(0)
    assert corners == {int(np.asarray(transforms.crop(image, (8, 8), random=True))[0, 0, 0]) for _ in range(40)}
    assert len(corners) > 15
    assert transforms.size_of(transforms.crop(image, (40, 60), random=True)) == (40, 60)


def test_captions_are_dropped_as_often_as_asked():
    torch.manual_seed(0)
    sample = {"caption": "a dog", "number": 1}
    captions = [transforms.drop_caption(sample, 0.1)["caption"] for _ in range(2000)]
    assert set(captions) == {"a dog", ""}
    assert 140 < captions.count("") < 260
    assert sample["caption"] == "a dog"


def test_a_caption_is_chosen_by_weight_among_those_that_are_there():
    torch.manual_seed(0)
    sample = {"caption": "short", "long": "a long one", "none": None}
    even = [transforms.choose_caption(sample, ["caption", "long", "none"])["caption"] for _ in range(500)]
    assert 200 < even.count("short") < 300
    assert even.count("short") + even.count("a long one") == 500
    weighed = [transforms.choose_caption(sample, {"caption": 1, "long": 9})["caption"] for _ in range(500)]
    assert 420 < weighed.count("a long one") < 480
    assert transforms.choose_caption({"a": None, "b": ""}, ["a", "b"]) == {"a": None, "b": "", "caption": ""}


def test_what_cannot_be_is_refused_in_a_line(image):
    with pytest.raises(ConfigError, match="a picture of 40x60 holds no crop of 50x10"):
        transforms.crop(image, (50, 10))
    with pytest.raises(ConfigError, match=r"a picture is bytes; expected it decoded"):
        transforms.fit(b"\xff\xd8", (8, 8))
