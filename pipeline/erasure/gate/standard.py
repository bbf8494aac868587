"""What vectors of a text encoder are worth comparing by: how they stand out from those of everyday words."""

import torch
from torch import Tensor

RIDGE = 4.0  # times the median variance of a direction, added to each: a few directions that rule must not set it


class Standard:
    """The scale of an encoder, taken from the vectors ``(M, D)`` that it makes of everyday words.

    Each dimension is centred and measured by its spread over them, so that nothing changes where an encoder scales its
    dimensions or adds a vector to all. Then the principal directions are scaled by 1/sqrt(variance + ridge), since in
    every encoder a few of them, in which all words are alike or differ by how frequent they are, rule.
    """

    def __init__(self, basis: Tensor):
        basis = basis.double().cpu()
        self.mean = basis.mean(0)
        self.spread = basis.std(0, correction=0).clamp_min(1e-12)  # (D,), of one word too
        centred = (basis - self.mean) / self.spread
        if len(basis) > basis.shape[1]:  # the same, and quicker
            variance, directions = torch.linalg.eigh(centred.T @ centred / len(basis))
            self._directions = directions.T
        else:
            _, sizes, self._directions = torch.linalg.svd(centred, full_matrices=False)
            variance = sizes.square() / len(basis)
        self._scale = (variance.clamp_min(0) + RIDGE * variance.median()).clamp_min(1e-12).rsqrt()

    def of(self, vectors: Tensor) -> Tensor:
        """Return *vectors* ``(N, D)`` in it, each of length 1: ``(N, K)``, float64, on the CPU."""
        own = (vectors.double().cpu() - self.mean) / self.spread
        return torch.nn.functional.normalize(own @ self._directions.T * self._scale, dim=-1)


def nearness(vectors: Tensor, own: Tensor, rivals: Tensor) -> Tensor:
    """Return the cosine of *vectors* ``(N, K)`` with the nearest of a concept's *own* words ``(U, K)``, ``(N,)``.

    Where one of *rivals* ``(R, K)`` is nearer it is less: by what the rival is nearer, and at most by what it explains.
    """
    of_rivals = (vectors @ rivals.T).clamp_min(0)  # (N, R)
    near = torch.full((len(vectors),), -1.0, dtype=vectors.dtype)
    for word in own:
        cosine = vectors @ word
        if len(rivals):
            nearer = (of_rivals - cosine[:, None]).clamp_min(0)
            explained = of_rivals * (rivals @ word).clamp_min(0)
            cosine = cosine - torch.minimum(nearer, explained).amax(1)
        near = torch.maximum(near, cosine)
    return near
