"""How CEASE acts while sampling: it switches attention in a place, and listens for what no word told.

What is switched, when and why is told in ``method.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pipeline.erasure.cease.hearing import FirstStep, Listener
from pipeline.erasure.cease.mask import PlaceMask, most_positions
from pipeline.erasure.cease.options import CEASEOptions
from pipeline.erasure.method import Prompts, Sampling, Steering
from pipeline.models.layers import Layer, split_heads


@dataclass(frozen=True)
class Alternative:
    """What a concerned sample listens to instead: ``embeds (T, D)`` and their ``mask (T,)``, and which tokens mark the
    place, ``(T,)`` of 0/1: ``tokens`` in the prompt as it is, ``stand_in`` in the alternative. ``strength`` is s of the
    formula; ``threshold`` is that of the place; ``everywhere`` says that m is 1 all over the picture from the first
    step on."""

    embeds: Tensor
    mask: Tensor | None  # as ``Conditioning.mask``
    tokens: Tensor
    stand_in: Tensor
    strength: float
    threshold: float
    everywhere: bool


class CEASESteering(Steering):
    """Switches the attention of the samples ``rows`` of one batch."""

    def __init__(
        self,
        options: CEASEOptions,
        rows: Sequence[int],
        alternatives: Sequence[Alternative],
        prompts: Prompts,
        sampling: Sampling,
    ):
        super().__init__()
        self.samples, self.members = len(prompts), list(rows)
        samples = self.samples
        first = samples if prompts.negative is not None else 0  # where the positives begin among the denoiser's rows
        device = prompts.positive.embeds.device
        # All of a batch is the commonest case, and a slice of it is a view where a list of rows would be a copy.
        every = len(rows) == samples
        self.rows = (
            slice(first, first + samples) if every else torch.tensor([first + row for row in rows], device=device)
        )
        self.embeds = torch.stack([alternative.embeds for alternative in alternatives])
        own, others = prompts.positive.mask, [a.mask for a in alternatives if a.mask is not None]
        self.own_mask = None if own is None else own[list(rows), None, None]  # (rows, 1, 1, T)
        self.mask = torch.stack(others)[:, None, None] if others else None
        self.tokens = torch.stack([alternative.tokens for alternative in alternatives])
        self.stand_in = torch.stack([alternative.stand_in for alternative in alternatives])
        self.strength = torch.tensor([a.strength for a in alternatives], device=device).view(-1, 1, 1, 1)
        everywhere = [i for i, alternative in enumerate(alternatives) if alternative.everywhere]
        thresholds = [alternative.threshold for alternative in alternatives]
        self.place = PlaceMask(len(rows), sampling.latent_shape, thresholds, device, everywhere)
        self.most = most_positions(sampling.latent_shape)
        self.options = options
        self.steps = sampling.steps
        self.keys: dict[int, Tensor] = {}  # of the prompts, by layer
        self.alternative: dict[int, tuple[Tensor, Tensor]] = {}
        self.looks = self.gathers = True

    def begin(self, step: int, timestep: Tensor) -> None:
        done, look = step / self.steps, self.options.look
        self.looks = self.steps > 1 and look > 0 and (step == 0 or done < look)
        self.place.begin(step, self.looks, self.gathers)
        self.gathers = self.looks or step == 0 or done < self.options.gather

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        attn = layer.module
        self.keys[layer.index] = key[self.rows]
        self.alternative[layer.index] = (
            split_heads(attn.to_k(self.embeds), layer.heads),
            split_heads(attn.to_v(self.embeds), layer.heads),
        )
        return key, value

    def blend(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        query = query[self.rows]  # (rows, heads, N, d)
        positions = query.shape[2]
        if self.gathers and positions <= self.most:
            self.gather(layer, query, output)
        if self.looks and not self.place.placeless:
            return output
        switched = self.switched(layer, query)
        weight = self.strength.to(switched.dtype) * self.place.at(positions, switched.dtype)
        if isinstance(self.rows, slice):
            output[self.rows].lerp_(switched, weight)
        else:
            output[self.rows] = torch.lerp(output[self.rows], switched, weight)
        return output

    def gather(self, layer: Layer, query: Tensor, output: Tensor) -> None:
        """Add to the place what one layer shows of it: queries ``(rows, heads, N, d)``, and all outputs."""
        self.place.add(query, self.keys[layer.index], self.tokens, self.own_mask)
        self.place.add(query, self.alternative[layer.index][0], self.stand_in, self.mask)

    def masks(self) -> dict[str, Tensor]:
        return self.place.shown(self.samples, self.members, self.looks)

    def switched(self, layer: Layer, query: Tensor) -> Tensor:
        """Return what listening to the alternative gives, ``(rows, heads, N, d)``."""
        return scaled_dot_product_attention(query, *self.alternative[layer.index], attn_mask=self.mask)


class HeardSteering(CEASESteering):
    """Switches samples in whose attention a concept was heard; the place is where it is heard.

    ``listener`` hears the method's concepts; of them those of ``concepts`` ``(rows, C)``, 0 and 1, count.
    """

    def __init__(self, listener: Listener, concepts: Tensor, *batch: Any):
        super().__init__(*batch)
        self.listener = listener
        self.concepts = concepts[:, :, None, None]

    def gather(self, layer: Layer, query: Tensor, output: Tensor) -> None:
        if self.listener.listens(query.shape[2]):
            heard = self.listener.heard(layer, query, output[self.rows])  # (rows, C, h, w)
            self.place.gather((heard * self.concepts).amax(1, keepdim=True).clamp_min(0))


class WatchfulSteering(Steering):
    """Listens to the first step of every sample, and from then on switches those in which a concept was heard.

    ``gated`` are steerings that act from the beginning. ``late(found, listener)`` makes the one that joins them;
    ``found`` ``(B, C)``, bool, tells which concepts are heard in which samples and acted on by no other.
    """

    def __init__(
        self,
        listener: Listener,
        threshold: float,
        names: Sequence[str],
        known: Tensor,
        first: int,
        gated: Sequence[Steering],
        late: Callable[[Tensor, Listener], Steering],
    ):
        super().__init__()
        self.listener, self.threshold, self.late = listener, threshold, late
        self.names = names  # of the concepts' scores, among the gates
        self.known = known  # (B, C), bool: what the text told
        self.first = first  # where the positives begin among the denoiser's rows
        self.parts = list(gated)
        self.texts: dict[int, tuple[Layer, Tensor, Tensor]] = {}
        self.hearing: FirstStep | None = FirstStep(listener)

    def begin(self, step: int, timestep: Tensor) -> None:
        if step == 1 and self.hearing is not None:
            scores, self.hearing = self.hearing.scores(), None
            self.gates |= {name: scores[:, i] for i, name in enumerate(self.names)}
            found = (scores >= self.threshold) & ~self.known
            if found.any():
                part = self.late(found, self.listener)
                for layer, key, value in self.texts.values():
                    part.text(layer, key, value)
                self.parts.append(part)
            self.texts = {}
        for part in self.parts:
            part.begin(step, timestep)

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if self.hearing is not None:
            self.texts[layer.index] = layer, key, value  # for whoever joins
        for part in self.parts:
            key, value = part.text(layer, key, value)
        return key, value

    def blend(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        if self.hearing is not None:  # before anything is switched
            self.hearing.add(layer, query[self.first :], output[self.first :])
        for part in self.parts:
            output = part.blend(layer, query, output)
        return output

    def masks(self) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = {}
        for part in self.parts:
            for name, mask in part.masks().items():
                masks[name] = torch.maximum(masks[name], mask) if name in masks else mask
        return masks
