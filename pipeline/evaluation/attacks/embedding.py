"""An attack on edits by embeddings: of all that could be handed to the edited projections, what still is the concept?

An edit of weights W -> W' sends the concept's token embeddings c elsewhere; it does not follow that no embedding leads
there any more. The one that comes nearest has a closed form, as in RECE (Gong et al., ECCV 2024, arXiv 2407.12383,
eq. 7), where however e is held near 0 and not near c, which takes from it what the edit had left in place:

    e = argmin sum ||W' e - W c||^2 + reg s ||e - c||^2 = c + (reg s I + sum W'^T W')^-1 sum W'^T (W - W') c

summed over all layers that tokens enter, keys and values alike; s = tr(sum W^T W) / D makes ``reg`` free of the model's
scale. Every token of the prompt is replaced by its e, so this is a white box that reads the edited and the original
projections, and hands in embeddings instead of words: an attacker who runs the weights, not one who types a prompt. It
bounds searches for words such as ``ring_a_bell.py``, which reach only what the text encoder can say. Where no
projection was edited e is c, and the attack is the plain prompt.

It is a way into the model and not a prompt, so methods that read the text are given the true one, which names the
concept: their gates open, and what they then do meets embeddings that it has not seen. So the figure is of edits, and
of what is stacked on one.

It undoes plain UCE in most cases (figures in ``pipeline/evaluation/README.md``); how ``reg`` was chosen is in
``pipeline/evaluation/results/LOG.md``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.erasure.method import Method, Prompts
from pipeline.models.family import TextProjection
from pipeline.models.load import Model


class EmbeddingAttack(Method):
    """A step before all others of a recipe, which replaces the embeddings of every prompt.

    *model* has its edits; ``original`` are the weights of ``token_projections`` before them, by name. On a model
    without edits the two are the same.
    """

    def __init__(self, model: Model, concepts: Sequence[Concept], original: Mapping[str, Tensor], reg: float):
        super().__init__(model, concepts, None, label="attack")
        self.map = _map(token_projections(model), original, reg)

    def condition(self, prompts: Prompts) -> Prompts:
        given = prompts.positive.embeds
        embeds = (given.double() @ self.map.T).to(given.dtype)
        return prompts.changed(positive=replace(prompts.positive, embeds=embeds))


def _map(edited: Sequence[TextProjection], original: Mapping[str, Tensor], reg: float) -> Tensor:
    """Return the map ``(D, D)``, float64, that takes c to e."""
    width = edited[0].width
    identity = torch.eye(width, dtype=torch.float64, device=edited[0].weight.device)
    before, after, lost = (torch.zeros_like(identity) for _ in range(3))
    for p in edited:
        w, now = original[p.name][:, :width].double(), p.weight[:, :width].double()
        before += w.T @ w
        after += now.T @ now
        lost += now.T @ (w - now)
    solved: Tensor = torch.linalg.solve(reg * before.trace() / width * identity + after, lost)
    return identity + solved


def token_projections(model: Model) -> list[TextProjection]:
    """Return the layers that token embeddings enter."""
    return [p for p in model.family.text_projections() if p.kind != "pooled"]
