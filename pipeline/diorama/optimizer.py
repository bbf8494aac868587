"""Muon for the matrices, AdamW for everything else; an exponential moving average of weights.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a matrix by the nearest
orthogonal one; a convolution counts as the matrix (out, in * kernel). Updates are scaled by 0.2 * sqrt(max(rows,
columns)), which makes AdamW's learning rates fit (Liu et al. 2025, arXiv 2502.16982). torch.optim.Muon takes no
convolutions, hence these lines.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.models.dtype import has_bf16

_FAST_BF16 = has_bf16()


def orthogonalize(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The orthogonal factor of *matrix* (rows, columns), roughly: singular values come out in 0.7..1.2."""
    a, b, c = 3.4445, -4.7750, 2.0315
    # In bfloat16 as usual; CPUs without bf16 instructions emulate it, slowly.
    x = matrix.bfloat16() if matrix.is_cuda or _FAST_BF16 else matrix.float()
    wide = x.size(0) <= x.size(1)
    x = x if wide else x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = x if wide else x.T
    return orthogonal.to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for parameters of two or more dimensions; *groups* are ordinary parameters."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(momentum, group["momentum"]).reshape(p.size(0), -1)
                update = orthogonalize(update)
                scale = 0.2 * max(update.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)


def optimizers(model: nn.Module, lr: float, muon: bool = True) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices and convolutions, AdamW for vectors, embeddings, first and last layers."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        outer = any(part in name for part in ("embedding", "conv_in", "conv_out", "head"))
        (matrices if muon and p.ndim >= 2 and not outer else rest).append(p)
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]
    if matrices:
        found.append(Muon(matrices, lr=lr))
    return found


def schedule(step: int, total: int, warmup: int = 100, decay_share: float = 0.25) -> float:
    """Factor on the learning rate: warm-up, constant, then linear decay to zero over the last share of the steps."""
    remaining = (total - step) / max(1.0, total * decay_share)
    return max(0.0, min(1.0, (step + 1) / warmup, remaining))


def take_step(parts: Iterable[torch.optim.Optimizer], lr: float) -> None:
    """Let all optimizers of a model take one step at learning rate *lr*, and clear the gradients."""
    for part in parts:
        for group in part.param_groups:
            group["lr"] = lr
        part.step()
        part.zero_grad(set_to_none=True)


class Average:
    """An exponential moving average of a model's weights, whose memory grows from nothing to *decay*."""

    def __init__(self, model: nn.Module, decay: float = 0.9995) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the present weights; early on the memory is a tenth of the updates so far."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)
