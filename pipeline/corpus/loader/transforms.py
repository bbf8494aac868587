"""What a transform of samples is made of: plain functions of captions and pictures.

Pictures are uint8 tensors (H, W, 3) or Pillow images; sizes are (height, width). Random draws are torch's, which
``Loader`` seeds for each position. Any of them may be replaced by a transform of torchvision's v2, to which a Pillow
image, or a tensor with its channels first, can be given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.errors import ConfigError

Size = tuple[int, int]


def drop_caption(sample: dict[str, Any], probability: float, column: str = "caption") -> dict[str, Any]:
    """Return *sample*, with *probability* without its caption (``""``): what trains classifier-free guidance (Ho and
    Salimans 2022, arXiv 2207.12598, algorithm 1)."""
    return {**sample, column: ""} if torch.rand(()).item() < probability else sample


def choose_caption(
    sample: dict[str, Any], columns: Sequence[str] | Mapping[str, float], into: str = "caption"
) -> dict[str, Any]:
    """Return *sample* with the text of one of *columns* in the column *into*: by weight where they have weights, and
    only among those that are neither null nor empty. Where all are, *into* is ``""``."""
    weights = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, 1.0)
    there = [name for name in weights if sample[name]]
    if not there:
        return {**sample, into: ""}
    drawn = torch.multinomial(torch.tensor([weights[name] for name in there], dtype=torch.float64), 1)
    return {**sample, into: sample[there[int(drawn)]]}


def size_of(image: Any) -> Size:
    """Return height and width. Raises ``ConfigError`` for what is not decoded."""
    if isinstance(image, Tensor):
        return int(image.shape[0]), int(image.shape[1])
    if isinstance(image, Image.Image):
        return image.height, image.width
    raise ConfigError(f"a picture is {type(image).__name__}; expected it decoded, by Corpus(decode='uint8' or 'pil')")


def resize(image: Any, size: Size) -> Any:
    """Return *image* in *size*, whatever its shape was, by a bicubic filter with antialiasing."""
    if size_of(image) == tuple(size):
        return image
    if isinstance(image, Image.Image):
        return image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    batch = image.permute(2, 0, 1)[None]  # (1, 3, H, W)
    return interpolate(batch, size=tuple(size), mode="bicubic", antialias=True)[0].permute(1, 2, 0).contiguous()


def resize_shorter(image: Any, side: int) -> Any:
    """Return *image* with its shorter side of *side* pixels, its shape kept."""
    height, width = size_of(image)
    scale = side / min(height, width)
    return resize(image, (max(side, round(height * scale)), max(side, round(width * scale))))


def crop(image: Any, size: Size, *, random: bool = False) -> Any:
    """Return a part of *image* of *size*, its middle or any. Raises ``ConfigError`` for a smaller one."""
    height, width = size_of(image)
    room = height - size[0], width - size[1]
    if min(room) < 0:
        raise ConfigError(f"a picture of {height}x{width} holds no crop of {size[0]}x{size[1]}; resize it before")
    top, left = (int(torch.randint(r + 1, ())) for r in room) if random else (r // 2 for r in room)
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + size[1], top + size[0]))
    return image[top : top + size[0], left : left + size[1]]


def fit(image: Any, size: Size, *, random: bool = False) -> Any:
    """Return *image* in *size*: resized as little as lets it cover that, and cropped."""
    height, width = size_of(image)
    scale = max(size[0] / height, size[1] / width)
    covering = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    return crop(resize(image, covering), size, random=random)
