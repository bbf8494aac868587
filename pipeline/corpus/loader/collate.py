"""Samples to a batch: a dict of columns."""

import math
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

# Memory of batches that nobody has any more: the system hands out fresh memory page by page, which costs a tenth of
# what decoding a small picture does. As numpy's it is of huge pages, where the system has them.
_free: deque[np.ndarray] = deque(maxlen=2)


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return samples as one dict of columns: tensors and arrays of equal shapes are stacked, numbers become a tensor,
    all else (text, null, pictures of several sizes) is a list."""
    return {name: column([sample[name] for sample in samples]) for name in samples[0]}


def column(values: list[Any]) -> Any:
    """Return one column of a batch (see ``collate``)."""
    first = values[0]
    if isinstance(first, Tensor) and all(isinstance(v, Tensor) and v.shape == first.shape for v in values):
        return _stacked(values)
    if isinstance(first, np.ndarray) and all(isinstance(v, np.ndarray) and v.shape == first.shape for v in values):
        return torch.from_numpy(np.stack(values))
    if all(isinstance(v, (int, float)) for v in values):
        return torch.tensor(values)
    return values


def _stacked(values: list[Tensor]) -> Tensor:
    first = values[0]
    return torch.stack(values, out=new_batch((len(values), *first.shape), first.dtype))


def new_batch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor to be filled: in a worker in memory that the training process reads, which spares a copy; else
    in memory of an earlier one of as many bytes, once nothing refers to that."""
    if get_worker_info() is None:
        held = _memory(math.prod(shape) * dtype.itemsize)
        lent = held.view()  # lives as long as any tensor, array or storage on this memory
        weakref.finalize(lent, _free.append, held).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)
    empty = torch.empty(0, dtype=dtype)
    storage = empty._typed_storage()._new_shared(math.prod(shape), device=empty.device)
    return empty.new(storage).resize_(shape)


def _memory(size: int) -> np.ndarray:
    """Return an array of so many bytes, free ones if there are; free ones of another size are let go."""
    while _free:
        held = _free.popleft()
        if len(held) == size:
            return held
    return np.empty(size, np.uint8)
