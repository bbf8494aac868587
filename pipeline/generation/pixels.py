"""From the decoder's floats to bytes in host memory, without the host waiting; and how long the device took."""

import time

import torch
from torch import Tensor

BLANK = 2  # levels of 255: a picture that spans no more in any channel shows nothing


@torch.inference_mode()
def finish(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn float ``(B, 3, H, W)`` in -1..1 into uint8 ``(B, H, W, 3)`` on its device, and look for faults.

    Returns the images and, bool ``(B,)``, which are finite and which blank. What is not finite becomes black.
    """
    finite = pixels.isfinite().flatten(1).all(1)
    scaled = torch.nan_to_num(pixels.float() / 2 + 0.5, nan=0.0).clamp(0, 1).mul(255).round()
    images = scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    flat = images.flatten(1, 2).int()
    blank = (flat.amax(1) - flat.amin(1)).amax(1) <= BLANK
    return images, finite, blank


def to_host(tensor: Tensor) -> Tensor:
    """Begin to copy *tensor* to the host.

    From a GPU it lands in pinned memory, which torch's own pool reuses, and is valid only after the device has been
    waited for (``Clock.seconds``).
    """
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


class Clock:
    """Times the device from its construction to ``stop``; on a GPU by events in its own queue, which stop nothing."""

    def __init__(self, device: torch.device):
        self.events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        self.started = time.perf_counter()
        self.stopped = self.started
        if device.type == "cuda":
            self.events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            self.events[0].record()

    def stop(self) -> None:
        self.stopped = time.perf_counter()
        if self.events is not None:
            self.events[1].record()

    def seconds(self) -> float:
        """Wait for the device to come to ``stop``, and return the seconds between."""
        if self.events is None:
            return self.stopped - self.started
        self.events[1].synchronize()
        return float(self.events[0].elapsed_time(self.events[1])) / 1000
