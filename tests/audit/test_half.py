"""In half precision too a picture's scores are the same alone and among others, and near to those in float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.concepts.term import Term
from tests import tiny_eyes

TOLERANCE = 2e-2
EYES = {"clip": tiny_eyes.clip, "open_vocabulary": tiny_eyes.owl, "classifier": tiny_eyes.classifier}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("detector", "make"), EYES.items())
def test_scores_are_the_same_alone_and_among_others(
    detector: str, make: Callable[[Path], Path], dtype: str, tmp_path: Path
) -> None:
    folder, terms, told, exact = str(make(tmp_path / "checkpoint")), [Term("cat", ("cat", "kitten"))], [], []
    half = tiny_eyes.load(detector, model=folder, dtype=dtype)
    whole = tiny_eyes.load(detector, model=folder, dtype="float32")
    for height, width in tiny_eyes.SIZES:
        images = tiny_eyes.pictures(5, height, width)
        told.append(half.see(images, terms).scores)
        exact.append(whole.see(images, terms).scores)
        alone = np.concatenate([half.see(image[None], terms).scores for image in images])
        assert np.abs(alone - told[-1]).max() < TOLERANCE
    difference = np.abs(np.concatenate(told) - np.concatenate(exact)).max()
    assert 0 < difference < TOLERANCE, "it is another precision, and the same network"
    assert np.ptp(np.concatenate(told)) > 2 * TOLERANCE, "it tells pictures apart"
