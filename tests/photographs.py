"""Real photographs that scikit-image and scikit-learn bring with them: nothing is fetched."""

from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image

PHOTOGRAPHS = {
    "cat": Path(skimage.__file__).parent / "data/chelsea.png",
    "coffee": Path(skimage.__file__).parent / "data/coffee.png",
    "rocket": Path(skimage.__file__).parent / "data/rocket.jpg",
    "face": Path(skimage.__file__).parent / "data/astronaut.png",
    "flower": Path(sklearn.__file__).parent / "datasets/images/flower.jpg",
    "temple": Path(sklearn.__file__).parent / "datasets/images/china.jpg",
}


def photograph(name: str) -> np.ndarray:
    """Return a photograph by its name here, uint8 (H, W, 3); each has a size of its own."""
    with Image.open(PHOTOGRAPHS[name]) as image:
        return np.array(image.convert("RGB"))


def portrait(folder: Path) -> Path:
    """Write another picture of the face, its mirror image made smaller, into *folder*; return its file."""
    with Image.open(PHOTOGRAPHS["face"]) as image:
        mirrored = image.convert("RGB").resize((400, 400)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(folder / "portrait.png")
    return folder / "portrait.png"
