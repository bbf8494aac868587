"""Pictures are prepared on the device as transformers' own processors with Pillow do it, to half a level of 255."""

import json

import numpy as np
import pytest
import torch

from pipeline.audit.preparation import SETTINGS, Preparation, Steps
from pipeline.errors import ConfigError
from tests import tiny_eyes

CPU = torch.device("cpu")
SQUARE = {"height": 32, "width": 32}


def prepared(folder, images) -> torch.Tensor:
    return Preparation("here", folder)(images, CPU, torch.float32)["pixel_values"]


@pytest.mark.parametrize(
    ("name", "settings", "on_device"),
    [
        ("CLIP", {"size": {"shortest_edge": 48}, "crop_size": SQUARE}, True),
        ("CLIP", {"size": {"shortest_edge": 24}, "crop_size": SQUARE}, True),  # cropped out of more than there is
        ("Siglip", {"size": SQUARE}, True),
        ("ViT", {"size": SQUARE}, True),
        ("OwlViT", {"size": SQUARE}, True),
        ("DeiT", {"size": {"height": 40, "width": 40}, "crop_size": SQUARE}, True),
        ("ViT", {"do_resize": False}, True),
        ("ConvNext", {"size": {"shortest_edge": 224}}, True),
        ("ConvNext", {"size": {"shortest_edge": 384}}, True),
        ("GroundingDino", {"size": {"shortest_edge": 64, "longest_edge": 100}}, True),
        ("EfficientNet", {"size": SQUARE}, False),
        ("Siglip", {"size": SQUARE, "resample": 1}, False),  # Lanczos
    ],
)
@pytest.mark.parametrize(("height", "width"), tiny_eyes.SIZES)
def test_it_is_what_the_processor_makes(tmp_path, name, settings, on_device, height, width):
    processor = tiny_eyes.processor(name, **settings)
    processor.save_pretrained(tmp_path)
    noise = np.random.default_rng(1).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    images = np.concatenate([noise, tiny_eyes.pictures(2, height, width)])
    expected = processor(list(images), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    assert (Preparation("here", tmp_path).steps is not None) == on_device
    found = prepared(tmp_path, images)
    assert found.shape == expected.shape
    levels = ((found - expected) * torch.tensor(processor.image_std)[:, None, None] * 255).abs()
    assert levels[1:].max() < 2.01
    assert levels.mean((1, 2, 3)).max() < 0.5  # in noise, where the order of the passes shows


def test_owlv2_pads_to_a_square_and_resizes_with_pillow(tmp_path):
    tiny_eyes.processor("Owlv2", size=SQUARE).save_pretrained(tmp_path)
    images = np.full((1, 40, 80, 3), 200, np.uint8)
    levels = prepared(tmp_path, images)[0, 0] * 0.26862954 * 255 + 0.48145466 * 255
    assert torch.allclose(levels[:15], torch.tensor(200.0), atol=1)
    assert torch.allclose(levels[17:], torch.tensor(0.0), atol=1)


def test_of_a_class_that_needs_torchvision_the_stated_settings_are_taken(tmp_path):
    settings = {
        "image_processor_type": "DINOv3ViTImageProcessorFast", "do_resize": True, "size": SQUARE, "resample": 2,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }  # fmt: skip
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    images = np.full((1, 40, 80, 3), 255, np.uint8)
    assert torch.allclose(prepared(tmp_path, images), torch.full((1, 3, 32, 32), 2.0))
    (tmp_path / SETTINGS).write_text(json.dumps({**settings, "image_mean": None}))
    with pytest.raises(ConfigError, match="here: DINOv3ViTImageProcessorFast is not in transformers here without"):
        Preparation("here", tmp_path)


def test_settings_may_lie_beside_the_network_as_in_a_pipeline_and_their_lack_is_one_line(tmp_path):
    (tmp_path / "safety_checker").mkdir()
    with pytest.raises(ConfigError, match=r"here: has no preprocessor_config.json, which tells how its"):
        Preparation("here", tmp_path / "safety_checker")
    tiny_eyes.processor("CLIP").save_pretrained(tmp_path / "feature_extractor")
    found = Preparation("here", tmp_path / "safety_checker")
    assert found.files == [tmp_path / "feature_extractor" / SETTINGS]
    assert found.steps == Steps(
        shortest=224, crop=(224, 224), mean=(0.48145466, 0.4578275, 0.40821073),
        deviation=(0.26862954, 0.26130258, 0.27577711),
    )  # fmt: skip
