"""Tensors from host memory to the device, without the host waiting for what the device does meanwhile."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return *tensor* on *device*; one in host memory goes to a GPU by way of pinned memory, in the order of its work.

    From pageable memory a copy begins only when the device has done all that it was given before.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
