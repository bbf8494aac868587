"""What the authors' own code gave on the tiny pipeline (see fixtures/edits.md), to hold ours against."""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.models.load import Model

FIXTURE = Path(__file__).parent / "fixtures" / "edits.npz"
PROBES = np.random.default_rng(0).normal(size=(128, 6)).astype(np.float32)  # every weight was kept as W @ PROBES


@functools.cache
def _fixture() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as data:
        return dict(data)


def group(prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names start with *prefix*/, by the rest of the name."""
    return {key.removeprefix(f"{prefix}/"): value for key, value in _fixture().items() if key.startswith(f"{prefix}/")}


def same_inputs(model: Model) -> None:
    """Fail where the tiny pipeline is no longer the one that the fixture was made with."""
    for text, expected in group("embeds").items():
        embeds = model.family.encode([text]).embeds[0, :, :8].numpy()
        assert np.abs(embeds - expected).max() < 1e-5, "tests/tiny.py changed: the fixture must be made again"
    weights = {p.name.removeprefix("unet."): p.weight for p in model.family.text_projections()}
    assert difference(weights, group("original")) < 1e-6


def in_double(model: Model) -> None:
    """Compute in float64 from the words on, as their code was made to."""
    model.pipe.text_encoder.double()
    model.pipe.unet.double()


def difference(weights: Mapping[str, Tensor], expected: Mapping[str, np.ndarray]) -> float:
    """Return the largest difference of W @ PROBES over all weights of *expected*, relative to its largest entry."""
    assert expected
    assert {name.removeprefix("unet.") for name in weights} == set(expected)
    ours = {name.removeprefix("unet."): probed(weight) for name, weight in weights.items()}
    return max(np.abs(ours[name] - value).max() / np.abs(value).max() for name, value in expected.items())


def probed(weight: Tensor) -> np.ndarray:
    return (weight.double() @ torch.from_numpy(PROBES).double()).numpy()
