"""Style by example: is a picture as near to a style's reference pictures as they are to each other?

Pictures are compared by the cosine of an image encoder's features: CLIP's or SigLIP's, DINO's, or those of CSD
(Somepalli et al., ECCV 2024), whose style head is a matrix on CLIP's features (``projection``). A picture's likeness is
the mean cosine to its 3 nearest references. The references give the scale: each is left out once and likened to the
others, and with mean m and deviation s of that a likeness l has the score Φ((l - m) / s), the share of pictures like
the references that are less alike. At the threshold of 0.05, 95 % of such pictures are found.

What it cannot tell is how many other pictures are as near: likeness of features is of things shown too, and references
that all show sunflowers find sunflowers. Only calibration on pictures of other styles tells the rate of false alarms.
With few references the scale itself is uncertain; below 3 there is none.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.audit.checkpoint import CheckpointDetector, in_own_queue
from pipeline.audit.encoder import CLASSES as CLIPS
from pipeline.concepts.term import Kind, Term
from pipeline.config.schema import DType
from pipeline.errors import ConfigError

DINOS = {"dinov2": "Dinov2Model", "dinov3_vit": "DINOv3ViTModel", "vit": "ViTModel"}
NEAREST = 3  # references that count for a picture, and the fewest there may be
THRESHOLD = 0.05  # uncalibrated: finds 95 % of pictures that are as near as the references are to each other
LEAST = 0.01  # of the deviation: references that are copies of each other would find nothing but copies


class Style(CheckpointDetector):
    """Judges styles that have reference pictures."""

    detector = "style"

    def __init__(
        self,
        device: str,
        model: str,
        revision: str | None = None,
        dtype: DType = DType.auto,
        batch: int = 32,
        projection: str | None = None,
    ):
        """*model* is a folder or a hub id, *projection* a safetensors file of one matrix (features, out), such as CSD's
        style head. Raises ``ConfigError``."""
        super().__init__(device, model, revision, dtype, batch)
        self.network = self.checkpoint.network(
            CLIPS | DINOS, "tell features of pictures", self.dtype, self.torch_device
        )
        self.preparation = self.checkpoint.preparation()
        self.projection = None if projection is None else Path(projection).expanduser()
        self.head = None if self.projection is None else _matrix(self.projection).to(self.torch_device)
        if self.head is not None and self.head.shape[0] != (width := self._width()):
            raise ConfigError(
                f"style: projection: {projection} takes {self.head.shape[0]} features, and {model} has {width}"
            )
        self._scales: dict[Term, tuple[Tensor, float, float]] = {}

    def files(self) -> Sequence[Path]:
        return [*super().files(), *([] if self.projection is None else [self.projection])]

    def knows(self, term: Term) -> bool:
        """Raises ``ConfigError`` for a style with fewer references than there must be."""
        if term.kind is not Kind.style or not term.references:
            return False
        self._scale(term)
        return True

    def threshold(self, term: Term) -> float:
        return THRESHOLD

    @in_own_queue
    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        scores = np.zeros((len(images), len(terms)), np.float32)
        start = 0
        for chunk in self.chunks(images):
            seen = self._features(chunk)
            for t, term in enumerate(terms):
                references, mean, deviation = self._scale(term)
                likeness = _nearest(seen @ references.T)
                share = torch.special.ndtr((likeness - mean) / deviation)
                scores[start : start + len(chunk), t] = share.cpu().numpy()
            start += len(chunk)
        return scores

    @in_own_queue
    def _scale(self, term: Term) -> tuple[Tensor, float, float]:
        """Return the features of a term's references, ``(R, D)``, and mean and deviation of their own likeness."""
        if term not in self._scales:
            if len(term.references) < NEAREST:
                raise ConfigError(
                    f"style: the concept {term!s} has {len(term.references)} reference pictures; expected {NEAREST} or "
                    "more, by which to tell how much its pictures differ"
                )
            features = torch.cat([self._features(_read(path)[None]) for path in term.references])
            among = features @ features.T
            among.fill_diagonal_(-math.inf)  # each is likened to the others
            likeness = _nearest(among, len(features) - 1)
            self._scales[term] = (features, float(likeness.mean()), max(float(likeness.std()), LEAST))
        return self._scales[term]

    def _features(self, images: np.ndarray) -> Tensor:
        """Return float32 ``(B, D)`` of length 1."""
        inputs = self.preparation(images, self.torch_device, self.dtype)
        if self.network.config.model_type in DINOS:
            found = self.network(**inputs).last_hidden_state[:, 0]
        elif self.head is not None:
            found = self.network.vision_model(**inputs).pooler_output
        else:
            found = self.network.get_image_features(**inputs).pooler_output
        found = found.float() if self.head is None else found.float() @ self.head
        return torch.nn.functional.normalize(found, dim=-1)

    def _width(self) -> int:
        config = self.network.config
        width: int = getattr(config, "vision_config", config).hidden_size
        return width


def _nearest(cosines: Tensor, others: int | None = None) -> Tensor:
    """Return the mean of the largest of ``(B, R)`` cosines, of at most *others*: ``(B,)``."""
    count = min(NEAREST, cosines.shape[1] if others is None else others)
    return cosines.topk(count, dim=1).values.mean(1)


def _matrix(path: Path) -> Tensor:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"style: projection: {path}: cannot be read as safetensors ({error})") from error
    if len(tensors) != 1 or next(iter(tensors.values())).dim() != 2:
        held = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ConfigError(f"style: projection: {path} holds {held or 'nothing'}; expected one matrix (features, out)")
    return next(iter(tensors.values())).float()


def _read(path: Path) -> np.ndarray:
    """Return a reference picture, uint8 ``(H, W, 3)``, upright as its EXIF says."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"references: {path}: cannot be read as a picture ({error})") from error
