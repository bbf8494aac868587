"""Samples to a batch: a dict of columns."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return samples as one dict of columns: tensors of equal shapes are stacked, numbers become a tensor, all else
    (text, null, pictures of several sizes) is a list."""
    return {name: column([sample[name] for sample in samples]) for name in samples[0]}


def column(values: list[Any]) -> Any:
    """Return one column of a batch (see ``collate``)."""
    first = values[0]
    if isinstance(first, Tensor) and all(isinstance(v, Tensor) and v.shape == first.shape for v in values):
        return _stacked(values)
    if all(isinstance(v, (int, float)) for v in values):
        return torch.tensor(values)
    return values


def _stacked(values: list[Tensor]) -> Tensor:
    first = values[0]
    return torch.stack(values, out=new_batch((len(values), *first.shape), first.dtype) if get_worker_info() else None)


def new_batch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor to be filled; in a worker in memory that the training process reads, which spares a copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    empty = torch.empty(0, dtype=dtype)
    storage = empty._typed_storage()._new_shared(math.prod(shape), device=empty.device)
    return empty.new(storage).resize_(shape)
