"""ESD's loss, for whoever trains with it: of tensors and two functions, and nothing else of this package."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

C = TypeVar("C")


def compute_erasure_loss(
    student: Callable[[Tensor, Tensor, C], Tensor],
    teacher: Callable[[Tensor, Tensor, C], Tensor],
    latents: Tensor,
    timestep: Tensor,
    concept: C,
    neutral: C,
    *,
    erase_from: C | None = None,
    negative_guidance: float = 2.0,
) -> Tensor:
    """Return ESD's loss, a float32 scalar whose gradient reaches the student alone.

        L = mean (e_s(x_t, f) - [e*(x_t, f) - eta (e*(x_t, c) - e*(x_t, n))])^2

    ``student`` e_s and ``teacher`` e* map latents x_t ``(B, C, h, w)``, the timestep (a scalar, or ``(B,)``) and a
    conditioning to a prediction ``(B, C, h, w)``, of noise or of velocity. A conditioning is whatever they take: token
    embeddings ``(B, T, D)``, or a ``Conditioning``. ``concept`` is c; ``neutral`` n is the empty prompt in the paper;
    ``erase_from`` f is the prompt whose answer changes, c itself if not given (to take "nude" out of "a woman", f is
    the latter). ``negative_guidance`` is eta in the authors' code: eta = 2 there is the paper's eta = 1 where f is c.

    The teacher runs without gradient and must not share the student's trained weights; it is the model before training.

    Gandikota et al., "Erasing Concepts from Diffusion Models", ICCV 2023, eq. 7.
    """
    source = concept if erase_from is None else erase_from
    with torch.no_grad():
        at_concept = teacher(latents, timestep, concept).float()
        at_source = at_concept if erase_from is None else teacher(latents, timestep, source).float()
        at_neutral = teacher(latents, timestep, neutral).float()
        target = at_source - negative_guidance * (at_concept - at_neutral)
    return mse_loss(student(latents, timestep, source).float(), target)
