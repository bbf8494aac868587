"""Schedules of flow matching: times shifted towards noise, the more so the larger the picture.

    mu = base + (max - base) * (tokens - tokens_base) / (tokens_max - tokens_base)        tokens: of the image

(Esser et al., arXiv 2403.03206, 5.3.2, in the linear form that FLUX's authors use and the scheduler's config states.)
"""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor


def shifted_timesteps(
    scheduler: Any,
    steps: int,
    tokens: int,
    max_shift: float,
    sigmas: Sequence[float] | None = None,
) -> Tensor:
    """Start *scheduler* anew and return its timesteps, in host memory.

    ``max_shift`` is used where the scheduler's config states none; ``sigmas``, the times before the shift, replace the
    scheduler's own where it takes any.
    """
    config = scheduler.config
    options: dict[str, Any] = {}
    if config.get("use_dynamic_shifting"):
        base, base_tokens = config.get("base_shift", 0.5), config.get("base_image_seq_len", 256)
        slope = (config.get("max_shift", max_shift) - base) / (config.get("max_image_seq_len", 4096) - base_tokens)
        options["mu"] = base + slope * (tokens - base_tokens)
    takes_sigmas = "sigmas" in inspect.signature(scheduler.set_timesteps).parameters
    if sigmas is not None and takes_sigmas and not config.get("use_flow_sigmas"):
        options["sigmas"] = list(sigmas)
    scheduler.set_timesteps(steps, device="cpu", **options)
    timesteps: Tensor = scheduler.timesteps
    return timesteps
