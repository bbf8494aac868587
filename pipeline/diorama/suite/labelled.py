"""Generated pictures labelled by looking at them, and how the detectors fare against those labels.

The detectors learn from renders; these pictures say how they judge what the model draws. Pictures and labels are kept
together in ``labelled/``, so that the scores do not depend on who can draw the same pictures again. The labels were
written without knowing prompts or verdicts.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.diorama.detector import DioramaDetector
from pipeline.diorama.world import OBJECTS, PICTURE_SIZE
from pipeline.evaluation.statistics import count

FOLDER = Path(__file__).parent / "labelled"
_COLUMNS = 20


@dataclass(frozen=True)
class Labelled:
    """``images`` uint8 (N, 64, 64, 3); bool (N, 64): ``shown``, what is clearly there, and ``unclear``, what may be
    there (a beginning, or two objects in one). ``weights`` is the fingerprint of the model that drew them."""

    images: np.ndarray
    shown: np.ndarray
    unclear: np.ndarray
    weights: str


def load_labelled(folder: Path = FOLDER) -> Labelled:
    """Read sheet and labels. A label is the objects of one picture, "cat, tiger", an unclear one marked "tiger?".

    A bare "?" says that something is there which could be anything.

    Raises ValueError for a label that names no object, or a sheet that does not have as many pictures.
    """
    record = json.loads((folder / "labels.json").read_text())
    sheet = np.asarray(Image.open(folder / "pictures.png").convert("RGB"))
    rows = sheet.shape[0] // PICTURE_SIZE
    tiles = sheet.reshape(rows, PICTURE_SIZE, _COLUMNS, PICTURE_SIZE, 3).swapaxes(1, 2)
    images = tiles.reshape(-1, PICTURE_SIZE, PICTURE_SIZE, 3)
    if len(images) != len(record["labels"]):
        raise ValueError(f"{folder}: {len(images)} pictures, {len(record['labels'])} labels")
    shown, unclear = (np.zeros((len(images), len(OBJECTS)), bool) for _ in range(2))
    for row, label in enumerate(record["labels"]):
        for name in filter(None, map(str.strip, label.split(","))):
            if name != "?" and name.rstrip("?") not in OBJECTS:
                raise ValueError(f"{folder}: picture {row} is labelled {name!r}, which is no object of the diorama")
            which = slice(None) if name == "?" else OBJECTS.index(name.rstrip("?"))
            (unclear if name.endswith("?") else shown)[row, which] = True
    return Labelled(images, shown, unclear, record["weights"])


def save_sheet(images: np.ndarray, path: Path) -> None:
    """Write uint8 (N, 64, 64, 3), N a multiple of 20, as one sheet for ``load_labelled``."""
    tiles = images.reshape(-1, _COLUMNS, PICTURE_SIZE, PICTURE_SIZE, 3).swapaxes(1, 2)
    Image.fromarray(tiles.reshape(-1, _COLUMNS * PICTURE_SIZE, 3)).save(path, optimize=True)


def judge_labelled(detectors: dict[str, DioramaDetector], labelled: Labelled) -> dict[str, Any]:
    """Per detector: how many labelled objects it sees, and in how many pictures it sees one that is not there."""
    result: dict[str, Any] = {"pictures": len(labelled.images), "weights": labelled.weights}
    images = torch.from_numpy(labelled.images.copy())
    for name, detector in detectors.items():
        limits = np.array([detector.thresholds[o] for o in OBJECTS])
        seen = detector.probabilities(images)[:, : len(OBJECTS)].numpy() >= limits
        result[name] = {
            "labelled objects seen": count(seen[labelled.shown]),
            "pictures with a false alarm": count((seen & ~labelled.shown & ~labelled.unclear).any(axis=1)),
        }
    return result
