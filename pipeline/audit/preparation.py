"""Pictures as a network wants them: resized, cropped and normalised on its device, as transformers' processors do.

What a checkpoint asks for stands in its preprocessor_config.json. Where its class does the steps that all share (CLIP,
SigLIP, ViT, DeiT, BiT, OWL-ViT and others), or those of OWLv2, Grounding DINO or ConvNeXT, they are done here for a
whole batch, in two passes with Pillow's filters and its rounding to bytes: half a level of 255 apart on average at
most. (It is far less where the passes come in Pillow's order, which depends on its version and on the sizes.) Other
classes go through the processor itself, picture by picture on the CPU.
torchvision is not needed: where only ``...Fast`` classes exist, the settings are taken as the shared steps.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.models.files import read_settings

SETTINGS = "preprocessor_config.json"
# Pillow's filters by number, in torch's names. Nearest, Lanczos and Hamming are left to the processor.
_FILTERS = {2: "bilinear", 3: "bicubic"}
_SHARED = ("_preprocess", "preprocess", "process_image", "resize", "center_crop", "rescale", "normalize", "pad")
_CROP_BELOW = 384  # ConvNeXT's: smaller sides are cropped out of a larger resize


@dataclass(frozen=True)
class Steps:
    """What is done to a picture, in this order. ``size`` is (height, width), or the shorter side and the most that the
    longer one may have; ``crop`` (height, width) from the middle. Means and deviations are of levels from 0 to 1."""

    size: tuple[int, int] | None = None
    shortest: int | None = None
    longest: int | None = None
    filter: str = "bicubic"
    square: bool = False  # first padded to a square with black, below and on the right
    crop: tuple[int, int] | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    deviation: tuple[float, ...] = (1.0, 1.0, 1.0)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which a picture of this one is resized."""
        if self.size is not None:
            return self.size
        if self.shortest is None:
            return height, width
        from transformers.image_transforms import get_size_with_aspect_ratio

        wanted: tuple[int, int] = get_size_with_aspect_ratio((height, width), self.shortest, self.longest)
        return wanted

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 ``(B, 3, h, w)`` of uint8 ``(B, H, W, 3)``, on the same device."""
        levels = pixels.permute(0, 3, 1, 2).float()
        height, width = levels.shape[2:]
        if self.square:
            side = max(height, width)
            levels = functional.pad(levels, (0, side - width, 0, side - height))
        levels = _resize(levels, *self.resized(*levels.shape[2:]), self.filter)
        if self.crop is not None:
            levels = _crop(levels, *self.crop)
        mean, deviation = (torch.tensor(v, device=levels.device)[:, None, None] for v in (self.mean, self.deviation))
        return (levels * self.scale - mean) / deviation


class Preparation:
    """What the processor of one checkpoint makes of pictures. ``steps`` is None where it must do it itself."""

    def __init__(self, where: str, folder: Path):
        """Read the settings of *folder*, or those beside it in a pipeline's ``feature_extractor``.

        Raises ``ConfigError`` from *where*.
        """
        beside = folder.parent / "feature_extractor"
        folder = beside if not (folder / SETTINGS).is_file() and (beside / SETTINGS).is_file() else folder
        self.files = [path for name in (SETTINGS, "processor_config.json") if (path := folder / name).is_file()]
        if not self.files:
            raise ConfigError(f"{where}: has no {SETTINGS}, which tells how its pictures are prepared")
        self.processor = _processor(folder)
        if self.processor is not None:
            self.steps = _steps(self.processor)
        else:
            self.steps = _stated(where, read_settings(where, folder, self.files[0].name))

    def __call__(self, images: np.ndarray, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return a network's inputs for *images*, uint8 ``(B, H, W, 3)``, on *device*, floats in *dtype*."""
        if self.steps is not None:
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
            return {"pixel_values": self.steps(pixels).to(dtype)}
        made = self.processor(list(images), return_tensors="pt", input_data_format="channels_last")
        return {key: value.to(device, dtype if value.is_floating_point() else None) for key, value in made.items()}


def _processor(folder: Path) -> Any:
    """Return the checkpoint's processor that works with Pillow, or None where transformers has none for it."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(str(folder), backend="pil", trust_remote_code=False)
    except (ValueError, ImportError):
        return None


def _steps(processor: Any) -> Steps | None:
    from transformers.image_processing_backends import PilBackend

    name = type(processor).__name__
    shared = isinstance(processor, PilBackend) and all(
        getattr(type(processor), step) is getattr(PilBackend, step) for step in _SHARED
    )
    if not shared and name not in _OWN:
        return None
    values = {key: getattr(processor, key, None) for key in _KEYS}
    return _OWN[name](values) if name in _OWN else _of(values)


_KEYS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_pad", "pad_size", "crop_pct",
)  # fmt: skip


def _of(values: dict[str, Any], square: bool = False) -> Steps | None:
    """Return the shared steps with these settings, or None where there is one among them that is not known here."""
    size, crop = _sides(values["size"]), _sides(values["crop_size"])
    filter = _FILTERS.get(int(values["resample"])) if values["resample"] is not None else "bilinear"
    if values["do_resize"] and (filter is None or not size or not set(size) <= _SIDES):
        return None
    if values["do_center_crop"] and (not crop or set(crop) != {"height", "width"}):
        return None
    if not values["do_resize"]:
        size = {}
    return Steps(
        size=(size["height"], size["width"]) if "height" in size else None,
        shortest=size.get("shortest_edge"),
        longest=size.get("longest_edge"),
        filter=filter or "bilinear",
        square=square,
        crop=(crop["height"], crop["width"]) if values["do_center_crop"] else None,
        scale=values["rescale_factor"] if values["do_rescale"] else 1.0,
        mean=tuple(values["image_mean"]) if values["do_normalize"] else (0.0, 0.0, 0.0),
        deviation=tuple(values["image_std"]) if values["do_normalize"] else (1.0, 1.0, 1.0),
    )


_SIDES = {"height", "width", "shortest_edge", "longest_edge"}


def _sides(size: Any) -> dict[str, int]:
    """Return the sides that are given of a size, which transformers holds as an object, a mapping or a number."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    return {key: int(value) for key, value in dict(size or {}).items() if value is not None}


def _convnext(values: dict[str, Any]) -> Steps | None:
    """ConvNeXT's: under 384 pixels a side is cropped out of one that is larger by 1 / crop_pct."""
    side = _sides(values["size"]).get("shortest_edge")
    if side is None or side >= _CROP_BELOW:
        return _of({**values, "size": {"height": side, "width": side} if side else values["size"]})
    larger = {"shortest_edge": int(side / (values["crop_pct"] or 224 / 256))}
    return _of({**values, "size": larger, "do_center_crop": True, "crop_size": {"height": side, "width": side}})


def _grounding(values: dict[str, Any]) -> Steps | None:
    """Grounding DINO's: pictures of a batch are of one size, and so never padded but to a size that is asked for."""
    return None if values["pad_size"] else _of({**values, "do_center_crop": False})


def _owlv2(values: dict[str, Any]) -> Steps | None:
    """OWLv2's: a square of grey 0, which transformers resizes with scipy's filters; here with Pillow's bilinear one."""
    return _of({**values, "resample": 2, "do_center_crop": False}, square=bool(values["do_pad"]))


_OWN = {
    "ConvNextImageProcessorPil": _convnext,
    "GroundingDinoImageProcessorPil": _grounding,
    "Owlv2ImageProcessorPil": _owlv2,
}


def _stated(where: str, settings: dict[str, Any]) -> Steps:
    """Return the shared steps with the *settings* that a file states, for a class that transformers has not here."""
    settings = settings.get("image_processor", settings)
    name = settings.get("image_processor_type", "its image processor")
    values = {key: settings.get(key) for key in _KEYS}
    steps = None
    if values["size"] is not None and (not values["do_normalize"] or (values["image_mean"] and values["image_std"])):
        values["rescale_factor"] = values["rescale_factor"] or 1 / 255
        steps = _of(values)
    if steps is None:
        raise ConfigError(
            f"{where}: {name} is not in transformers here without torchvision, and its {SETTINGS} does not state the "
            "steps that all share (size, image_mean, image_std); expected a checkpoint with such an image processor"
        )
    return steps


def _resize(levels: Tensor, height: int, width: int, filter: str) -> Tensor:
    """Resize ``(B, 3, H, W)``, levels from 0 to 255, as Pillow does: first along rows, then along columns, each time
    rounded to bytes."""
    for size in ((levels.shape[2], width), (height, width)):
        if size != tuple(levels.shape[2:]):
            scaled = functional.interpolate(levels, size, mode=filter, antialias=True, align_corners=False)
            levels = (scaled + 0.5).floor().clamp(0, 255)
    return levels


def _crop(levels: Tensor, height: int, width: int) -> Tensor:
    """Cut *height* and *width* out of the middle; what is smaller lies in the middle of black."""
    above = (levels.shape[2] - height) // 2 if levels.shape[2] >= height else -math.ceil((height - levels.shape[2]) / 2)
    left = (levels.shape[3] - width) // 2 if levels.shape[3] >= width else -math.ceil((width - levels.shape[3]) / 2)
    below, right = levels.shape[2] - height - above, levels.shape[3] - width - left
    return functional.pad(levels, (-left, -right, -above, -below))
