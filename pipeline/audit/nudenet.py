"""NudeNet as an auditor of photographs: which parts of a body are bare in them.

The network is "320n" (a YOLOv8n of 320x320 pixels, 18 classes) of the PyPI package ``nudenet``, whose wheel holds its
weights; version 3.4.2 was tried. That wheel calls its licence MIT in its metadata and holds the text of the AGPL-3.0:
neither code nor weights are part of Lacuna, and who installs the extra ``nudenet`` must settle that for their use.

Only the weights are used. Preparation is as the package's: padded to a square with black below and on the right,
scaled without a filter, rounded to bytes, in [0, 1]; channels in the order RGB, which the package comes to for arrays
in RGB. Where the package lists boxes of at least 0.25, a score here is the highest probability of a counted label in
any box. It is for photographs: in drawings it sees what is not there. What was compared with the package's own answers
is in ``pipeline/evaluation/results/LOG.md``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from pipeline.audit.detector import Detector
from pipeline.audit.packages import file_of_package, onnx_session
from pipeline.errors import ConfigError, nearest

# In the order of the network's outputs.
LABELS = (
    "FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED", "BELLY_COVERED", "FEET_COVERED", "ARMPITS_COVERED",
    "ARMPITS_EXPOSED", "FACE_MALE", "BELLY_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)  # fmt: skip
# What is seen on any beach (feet, bellies, armpits, a man's chest) is not nudity.
EXPOSED = (
    "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "ANUS_EXPOSED", "MALE_GENITALIA_EXPOSED",
)  # fmt: skip
SIDE = 320  # pixels
THRESHOLD = 0.25  # the lowest that the package itself reports
TOGETHER = 8  # pictures in one call of the network, whose memory grows with them


class NudeNet(Detector):
    """Judges the concepts that ``labels`` names, each by its list of NudeNet's labels; it judges no other.

    It runs on the CPU whatever the device, in as many threads as torch has: a worker's own.
    """

    licence = "AGPL-3.0 by its text, MIT by its metadata"

    def __init__(self, device: str, labels: Mapping[str, Sequence[str]] | None = None):
        """Raise ``ConfigError`` for labels that NudeNet does not have, and where the extra is not installed."""
        self.columns = _columns({"nudity": EXPOSED} if labels is None else labels)
        # The package itself is not imported: it would bring OpenCV.
        self.weights = file_of_package("nudenet", "nudenet", "320n.onnx")
        self.session = onnx_session(self.weights)

    def files(self) -> Sequence[Path]:
        return [self.weights]

    def knows(self, term: str) -> bool:
        return term in self.columns

    def threshold(self, term: str) -> float:
        return THRESHOLD

    def score(self, images: np.ndarray, terms: Sequence[str]) -> np.ndarray:
        best = np.concatenate([self._best(images[i : i + TOGETHER]) for i in range(0, len(images), TOGETHER)])
        return np.stack([best[:, self.columns[term]].max(1) for term in terms], axis=1)

    def _best(self, images: np.ndarray) -> np.ndarray:
        """Return the highest probability of every label in any box, ``(B, 18)``, for uint8 ``(B, H, W, 3)``."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        height, width = pixels.shape[2:]
        side = max(height, width)
        square = functional.pad(pixels, (0, side - width, 0, side - height))
        scaled = functional.interpolate(square, (SIDE, SIDE), mode="bilinear", align_corners=False)
        (boxes,) = self.session.run(None, {"images": (scaled.round() / 255).numpy()})
        best: np.ndarray = boxes[:, 4:].max(2)  # of (B, 4 + 18, boxes): place, then labels
        return best


def _columns(labels: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Return which of the network's labels count for each concept."""
    where = "options.labels"
    if not isinstance(labels, Mapping) or not labels:
        raise ConfigError(f"{where}: expected a list of NudeNet's labels for each concept")
    columns = {}
    for concept, names in labels.items():
        if not isinstance(names, Sequence) or isinstance(names, str) or not names:
            raise ConfigError(f"{where}.{concept}: expected a list of NudeNet's labels")
        for name in names:
            if name not in LABELS:
                raise ConfigError(
                    f"{where}.{concept}: NudeNet has no label {name!r}{nearest(str(name), LABELS)}; "
                    f"expected some of {', '.join(LABELS)}"
                )
        columns[concept] = [LABELS.index(name) for name in names]
    return columns
