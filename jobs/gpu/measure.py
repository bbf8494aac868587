"""Seconds, operations and bytes of what runs on one device."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode


def wait(device: torch.device) -> None:
    """Wait until *device* has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def timed(device: torch.device) -> Iterator[list[float]]:
    """Yield a list that holds, afterwards, the seconds until the device was done."""
    seconds: list[float] = []
    wait(device)
    started = time.perf_counter()
    yield seconds
    wait(device)
    seconds.append(time.perf_counter() - started)


def matrix_product(side: int, device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of two square matrices: the best of 5 rounds of 10."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):  # the first one warms up, and is never the best
        with timed(device) as seconds:
            for _ in range(10):
                a @ a
        best = min(best, seconds[0])
    return 10 * 2 * side**3 / best


def operations(run: Callable[[], Any]) -> int:
    """Floating-point operations of *run*, counted as they are dispatched: products and convolutions, as is usual."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def busy_seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds in which kernels ran on the GPU: they queue in one stream, so none runs beside another. On a CPU, which
    has no kernels to be waited for, the time of the process."""
    if device.type != "cuda":
        started = time.process_time()
        run()
        return time.process_time() - started
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    return float(sum(event.self_device_time_total for event in profiler.key_averages())) / 1e6


def share_of_roofline(images_per_second: float, figures: Mapping[str, Any]) -> dict[str, float]:
    """Return what so many images/s are of what a matrix product reaches, where *figures* has the latter."""
    reach = figures.get("reach", {})
    if "failed" in reach or not reach:
        return {}
    return {"roofline": images_per_second * reach["tflop_per_image"] / reach["product_tflops"]}


def digest(images: np.ndarray) -> str:
    """Name pictures, uint8 ``(B, H, W, 3)``, by their bytes."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()[:16]
