"""A linear head for each concept, trained on states: logistic regression, in place of the classifier that CGCE (arXiv
2511.05865) trains on text embeddings, to tell prompts that ask for a concept."""

import torch
from torch import Tensor

STEPS = 100  # of L-BFGS at most


def heads(states: Tensor, asks: Tensor, weights: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Return the heads of C concepts, ``(D, C)`` and ``(C,)``: a state's logit is ``state @ w + b``.

    *states* ``(M, D)`` are float64 and of about unit spread, *asks* ``(M, C)`` is 1 where a state is of the concept,
    *weights* ``(M, C)`` is what each counts, 0 where it is not to be learned from. Each class counts as much as the
    other; *decay* is the weight of the squared norm.
    """
    asks = asks.to(states)
    balance = sum(weights * own / (weights * own).sum(0).clamp_min(1e-12) / 2 for own in (asks, 1 - asks))
    w = torch.zeros(states.shape[1], asks.shape[1], dtype=states.dtype, requires_grad=True)
    b = torch.zeros(asks.shape[1], dtype=states.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(states @ w + b, asks, reduction="none")
        total = (losses * balance).sum() + decay * w.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return w.detach(), b.detach()
