"""What an encoder of pictures and texts tells of a picture. Measures that name the same checkpoint look once.

- ``clip``: the CLIP score of picture and caption, 100 times the cosine of their embeddings. (Hessel et al., EMNLP 2021,
  give 2.5 times the cosine, at least 0, with "A photo depicts" before the caption; that prefix is an option, and the
  rest arithmetic.) It is of the caption that may be trained on, as far as the encoder reads it.
- ``aesthetic``: a linear head on the picture's embedding of length 1, such as LAION's (Schuhmann et al., NeurIPS 2022).
- ``embedding``: the picture's embedding of length 1, in half precision: for deduplication and search.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.audit.encoder import Encoder
from pipeline.audit.measure import Measure
from pipeline.config.schema import DType
from pipeline.errors import ConfigError


class _Encoded(Measure):
    """Measures with an encoder."""

    name = ""  # in a config

    def __init__(
        self, device: str, model: str, revision: str | None = None, dtype: DType = DType.auto, batch: int = 32
    ):
        """*model* is a folder or a hub id. Raises ``ConfigError``."""
        super().__init__(device)
        self.encoder = Encoder.shared(self.name, device, model, revision, dtype, batch)

    def files(self) -> Sequence[Path]:
        return self.encoder.checkpoint.files

    def about(self) -> dict[str, str]:
        return self.encoder.about()


class ClipScore(_Encoded):
    """Measures ``clip``; null where there is no caption."""

    name = "clip"

    def __init__(
        self,
        device: str,
        model: str,
        revision: str | None = None,
        dtype: DType = DType.auto,
        batch: int = 32,
        prefix: str = "",
    ):
        """*model* is a folder or a hub id; *prefix* stands before each caption. Raises ``ConfigError``."""
        super().__init__(device, model, revision, dtype, batch)
        self.prefix = prefix

    def columns(self) -> Mapping[str, pa.DataType]:
        return {"clip": pa.float32()}

    def measure(self, images: np.ndarray, captions: Sequence[str]) -> Mapping[str, np.ndarray]:
        with self.encoder.looking():
            texts = self.encoder.texts([f"{self.prefix}{caption}" for caption in captions])
            scores = 100 * (self.encoder.pictures(images) * texts).sum(1).cpu().numpy()
        scores[[not caption for caption in captions]] = np.nan
        return {"clip": scores}


class Aesthetic(_Encoded):
    """Measures ``aesthetic``."""

    name = "aesthetic"

    def __init__(
        self,
        device: str,
        model: str,
        head: str,
        revision: str | None = None,
        dtype: DType = DType.auto,
        batch: int = 32,
    ):
        """*model* is a folder or a hub id. *head* is a safetensors file of ``weight``, (1, width) or (width), and
        ``bias``, (1), or none for 0. Raises ``ConfigError``."""
        super().__init__(device, model, revision, dtype, batch)
        self.head = Path(head).expanduser()
        weight, bias = _linear(self.head, self.encoder.width)
        self.weight, self.bias = weight.to(self.encoder.torch_device), float(bias)

    def files(self) -> Sequence[Path]:
        return [*super().files(), self.head]

    def columns(self) -> Mapping[str, pa.DataType]:
        return {"aesthetic": pa.float32()}

    def measure(self, images: np.ndarray, captions: Sequence[str]) -> Mapping[str, np.ndarray]:
        with self.encoder.looking():
            return {"aesthetic": (self.encoder.pictures(images) @ self.weight + self.bias).cpu().numpy()}


class Embedding(_Encoded):
    """Measures ``embedding``."""

    name = "embedding"

    def columns(self) -> Mapping[str, pa.DataType]:
        return {"embedding": pa.list_(pa.float16(), self.encoder.width)}

    def measure(self, images: np.ndarray, captions: Sequence[str]) -> Mapping[str, np.ndarray]:
        with self.encoder.looking():
            return {"embedding": self.encoder.pictures(images).to(torch.float16).cpu().numpy()}


def _linear(path: Path, width: int) -> tuple[Tensor, Tensor]:
    """Return the weight, float32 ``(width,)``, and the bias, float32 ``()``, of a head's file."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"aesthetic: head: {path}: cannot be read as safetensors ({error})") from error
    weight, bias = tensors.get("weight"), tensors.get("bias", torch.zeros(1))
    known = tensors.keys() <= {"weight", "bias"}
    if not known or weight is None or weight.shape not in ((1, width), (width,)) or bias.numel() != 1:
        held = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ConfigError(
            f"aesthetic: head: {path} holds {held or 'nothing'}; expected weight (1, {width}) and bias (1), a linear "
            "head on embeddings of this checkpoint"
        )
    return weight.float().reshape(width), bias.float().reshape(())
