"""EfficientNet-Lite0, a small classifier of ImageNet's 1,000 classes, with TensorFlow's weights.

The network is EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946, table 1) as Google's Lite variant changes it: ReLU6 in
place of SiLU, no squeeze-and-excitation, stem and head of one size in all variants. Convolutions are padded as
TensorFlow's "SAME" has it: where the padding is odd, the pixel more is below and on the right.

Weights bear the names of ``efficientnet_pytorch`` (``_blocks.3._project_conv.weight``). Batch normalisations, whose
statistics are fixed, are folded into the convolutions before them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 224  # pixels
CLASSES = 1000
STEM, HEAD = 32, 1280  # channels
# Of each stage: blocks, kernel, stride of its first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
EPSILON = 1e-3  # of the batch normalisations
MEAN, SCALE = 127.0, 128.0  # of bytes


class EfficientNetLite0(nn.Module):
    """Gives logits, ``(B, 1000)``, for pixels of ``prepare``."""

    def __init__(self, weights: Mapping[str, Tensor]):
        """Raise ``KeyError`` or ``RuntimeError`` for weights that are not this network's."""
        super().__init__()
        self.stem = _Convolution(3, STEM, 3, stride=2)
        blocks: list[_Block] = []
        width = STEM
        for count, kernel, stride, expansion, channels in STAGES:
            for i in range(count):
                blocks.append(_Block(width, channels, kernel, stride if i == 0 else 1, expansion))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = _Convolution(width, HEAD, 1)
        self.classifier = nn.Linear(HEAD, CLASSES)
        self._fold(weights, blocks)

    @classmethod
    def load(cls, path: Path) -> "EfficientNetLite0":
        """Read the weights of the file *path*, pickled by torch; nothing but tensors is unpickled."""
        return cls(torch.load(path, map_location="cpu", weights_only=True)).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = functional.relu6(self.head(self.blocks(functional.relu6(self.stem(pixels)))))
        logits: Tensor = self.classifier(found.mean((2, 3)))
        return logits

    def _fold(self, weights: Mapping[str, Tensor], blocks: Sequence["_Block"]) -> None:
        self.stem.fold(weights, "_conv_stem", "_bn0")
        for i, block in enumerate(blocks):
            if block.expand is not None:
                block.expand.fold(weights, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
            block.depthwise.fold(weights, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
            block.project.fold(weights, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")
        self.head.fold(weights, "_conv_head", "_bn1")
        self.classifier.load_state_dict({"weight": weights["_fc.weight"], "bias": weights["_fc.bias"]})


def prepare(images: Tensor) -> Tensor:
    """Return uint8 ``(B, H, W, 3)`` as the network takes them: float32 ``(B, 3, 224, 224)``, scaled as a whole whatever
    their shape, as what is at the border counts too."""
    pixels = images.permute(0, 3, 1, 2).float()
    scaled = functional.interpolate(pixels, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)
    return (scaled.clamp(0, 255) - MEAN) / SCALE


class _Convolution(nn.Conv2d):
    """A convolution and the batch normalisation after it, padded as TensorFlow does."""

    def __init__(self, wide: int, channels: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(wide, channels, kernel, stride, groups=groups)

    def fold(self, weights: Mapping[str, Tensor], convolution: str, norm: str) -> None:
        scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + EPSILON)
        weight = weights[f"{convolution}.weight"] * scale[:, None, None, None]
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        self.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, pixels: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        sides = []
        for length in reversed(pixels.shape[2:]):  # width first, as pad has it
            more = max(0, (-(-length // stride) - 1) * stride + kernel - length)
            sides += [more // 2, more - more // 2]
        return super().forward(functional.pad(pixels, sides))


class _Block(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, wide: int, channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = wide * expansion
        self.expand = _Convolution(wide, inner, 1) if expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _Convolution(inner, channels, 1)
        self.skips = stride == 1 and wide == channels

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = pixels if self.expand is None else functional.relu6(self.expand(pixels))
        found = self.project(functional.relu6(self.depthwise(found)))
        return found + pixels if self.skips else found
