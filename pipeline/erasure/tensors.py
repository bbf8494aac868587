"""Edited weights as tensors: by name from the pipeline on, checked against a model and written into it."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.load import Model


def apply_tensors(model: Model, tensors: Mapping[str, Tensor], originals: dict[str, Tensor] | None = None) -> None:
    """Write edited weights, by name from the pipeline on, into the model in place.

    *originals* takes copies, in host memory, of those that are written over, unless it has them already: applied in
    their turn, they make the model what it was. Raises ``ConfigError`` where one does not fit it; the model is then as
    it was.
    """
    check_tensors(model, tensors)
    if originals is not None:
        originals.update(copied(model, tensors.keys() - originals.keys()))
    parameters = dict(model.parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def copied(model: Model, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights of these *names* as they are now, in host memory, but for those that the model has not."""
    parameters = dict(model.parameters())
    return {name: parameters[name].detach().to("cpu", copy=True) for name in names if name in parameters}


def check_tensors(model: Model, tensors: Mapping[str, Tensor]) -> None:
    """Raise ``ConfigError`` for edited weights that the model has not, or has in another shape."""
    parameters = dict(model.parameters())
    for name, tensor in tensors.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            have = tuple(parameters[name].shape) if name in parameters else "no such weight"
            raise ConfigError(f"edited tensor {name} {tuple(tensor.shape)} does not fit this model ({have})")


def wide(values: Tensor) -> Tensor:
    """Return *values* in float32, or in float64 where they are already: what methods compute in, whatever the model's
    dtype."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
