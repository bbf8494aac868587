"""The encoder of pictures and texts, CLIP's, SigLIP's or their like, that the detector `clip` and measures share: it is
loaded once, and looks once at a batch of pictures."""

from collections.abc import Sequence
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from pipeline.audit.checkpoint import Looking
from pipeline.config.schema import DType

# model_type and class: those that give features of texts and pictures, and a scale between them.
CLASSES = {
    "altclip": "AltCLIPModel",
    "chinese_clip": "ChineseCLIPModel",
    "clip": "CLIPModel",
    "metaclip_2": "MetaClip2Model",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
}
TEXTS = 256  # that are read at once


class Encoder(Looking):
    """Embeds pictures and texts with one checkpoint. It is asked within ``looking``, and reckoned on with there."""

    def __init__(self, name: str, device: str, model: str, revision: str | None, dtype: DType, batch: int):
        """Raises ``ConfigError`` as ``Looking`` does, and for a checkpoint that embeds no pictures and texts."""
        super().__init__(name, device, model, revision, dtype, batch)
        self.network = self.checkpoint.network(CLASSES, "match texts and pictures", self.dtype, self.torch_device)
        self.tokenizer = self.checkpoint.tokenizer()
        self.preparation = self.checkpoint.preparation()
        self._last: tuple[np.ndarray, Tensor] | None = None
        with self.looking():
            self.width = self.texts(["a picture"]).shape[1]  # numbers of an embedding

    @classmethod
    def shared(cls, name: str, device: str, model: str, revision: str | None, dtype: DType, batch: int) -> "Encoder":
        """Return that of these options, which is loaded once as long as anybody has it; else as the constructor."""
        key = device, model, revision, dtype, batch
        found = _ENCODERS.get(key)
        if found is None:
            found = _ENCODERS[key] = cls(name, device, model, revision, dtype, batch)
        return found

    @property
    def is_sigmoid(self) -> bool:
        """Was it trained with a sigmoid for each pair, as SigLIP, and not with a softmax over many, as CLIP?"""
        return hasattr(self.network, "logit_bias")

    def pictures(self, images: np.ndarray) -> Tensor:
        """Return float32 ``(B, width)`` of length 1 of *images*, uint8 ``(B, H, W, 3)``; of the same array as last time
        without looking again."""
        if self._last is None or self._last[0] is not images:
            found = [self._look(chunk) for chunk in self.chunks(images)]
            self._last = (images, torch.cat(found) if found else torch.zeros(0, self.width, device=self.torch_device))
        return self._last[1]

    def _look(self, images: np.ndarray) -> Tensor:
        inputs = self.preparation(images, self.torch_device, self.dtype)
        return unit(self.network.get_image_features(**inputs))

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return float32 ``(B, width)`` of length 1; of a text that is too long what is beyond is not read."""
        # SigLIP was trained on texts of full length, and reads the end of a shorter one elsewhere.
        padding = "max_length" if self.is_sigmoid else True
        longest = self.network.config.text_config.max_position_embeddings
        found = []
        for start in range(0, len(texts), TEXTS):
            some = list(texts[start : start + TEXTS])
            read = self.tokenizer(some, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
            inputs = {k: v.to(self.torch_device) for k, v in read.items() if k in ("input_ids", "attention_mask")}
            found.append(unit(self.network.get_text_features(**inputs)))
        return torch.cat(found)


def unit(features: object) -> Tensor:
    """Return float32 ``(N, D)`` of length 1."""
    pooled = features if isinstance(features, Tensor) else features.pooler_output  # type: ignore[attr-defined]
    return torch.nn.functional.normalize(pooled.float(), dim=-1)


_ENCODERS: WeakValueDictionary[tuple[str, str, str | None, DType, int], Encoder] = WeakValueDictionary()
