"""How CEASE acts while sampling: it switches attention in a place, and listens for what no word told.

What is switched, when and why is told in ``method.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, stack

from pipeline.erasure.cease.hearing import FirstStep, Listener
from pipeline.erasure.cease.mask import PlaceMask, most_positions
from pipeline.erasure.cease.options import CEASEOptions
from pipeline.erasure.method import Prompts, Sampling, Steering
from pipeline.models.attention import projected
from pipeline.models.layers import Layer
from pipeline.models.switching import MARKS, OtherText, Switching
from pipeline.models.transfer import to_device


@dataclass(frozen=True)
class Alternative:
    """What a concerned sample listens to instead: ``embeds (T, D)`` and their ``mask (T,)``, and which tokens mark the
    place, ``(T,)`` of 0/1 in host memory: ``tokens`` in the prompt as it is, ``stand_in`` in the alternative.
    ``strength`` is s of the formula; ``threshold`` is that of the place; ``everywhere`` says that m is 1 all over the
    picture from the first step on."""

    embeds: Tensor
    mask: Tensor | None  # as ``Conditioning.mask``
    tokens: Tensor
    stand_in: Tensor
    strength: float
    threshold: float
    everywhere: bool


class CEASESteering(Steering):
    """Switches the attention of the samples ``rows`` of one batch, inside their place."""

    switching: Switching

    def __init__(
        self,
        options: CEASEOptions,
        rows: Sequence[int],
        alternatives: Sequence[Alternative],
        prompts: Prompts,
        sampling: Sampling,
    ):
        super().__init__()
        self.options, self.steps = options, sampling.steps
        self.samples, self.members = len(prompts), list(rows)
        # All samples go through the switch; those that are not concerned hear their own text, with the weight 0.
        by_row: list[Alternative | None] = [None] * len(prompts)
        for row, alternative in zip(rows, alternatives, strict=True):
            by_row[row] = alternative
        own, device = prompts.positive, prompts.positive.embeds.device
        self.embeds = stack([own.embeds[i] if a is None else a.embeds for i, a in enumerate(by_row)])
        mask = own.mask
        if mask is not None:
            mask = stack([mask[i] if a is None or a.mask is None else a.mask for i, a in enumerate(by_row)])
        unmarked = torch.zeros(self.embeds.shape[1])
        thresholds = [1.0 if a is None else a.threshold for a in by_row]
        everywhere = [i for i, a in enumerate(by_row) if a is None or a.everywhere]
        strength = torch.tensor([0.0 if a is None else a.strength for a in by_row]).view(-1, 1, 1)
        self.strength = to_device(strength.to(self.embeds.dtype), device)
        self.place = PlaceMask(len(prompts), sampling.latent_shape, thresholds, device, everywhere)
        self.switching = Switching(
            own_marks=self.marks([unmarked if a is None else a.tokens for a in by_row]),
            marks=self.marks([unmarked if a is None else a.stand_in for a in by_row]),
            most=most_positions(sampling.latent_shape),
            own_mask=None if own.mask is None else own.mask[:, None, None],
            mask=None if mask is None else mask[:, None, None],
        )
        self.looks = self.gathers = True

    def begin(self, step: int, timestep: Tensor) -> None:
        self.absorb()
        done, look = step / self.steps, self.options.look
        self.looks = self.steps > 1 and look > 0 and (step == 0 or done < look)
        self.place.begin(step, self.looks, self.gathers)
        self.gathers = self.looks or step == 0 or done < self.options.gather
        self.switching.weights = self.place.weights(self.strength)
        self.switching.gathers = self.gathers

    def switch(self, layer: Layer, key: Tensor, value: Tensor) -> OtherText:
        return OtherText(*projected(layer.module, self.embeds), key[-self.samples :])

    def absorb(self) -> None:
        """Add to the place what the last forward has shown of it."""
        by_size: dict[int, list[Tensor]] = {}
        for maps in self.switching.maps:
            by_size.setdefault(maps.shape[-1], []).append(maps)
        for together in by_size.values():
            self.place.gather(torch.cat(together))
        self.switching.maps = []

    def masks(self) -> dict[str, Tensor]:
        self.absorb()
        return self.place.shown(self.samples, self.members, self.looks)

    def marks(self, tokens: Sequence[Tensor]) -> Tensor:
        """Return *tokens* ``(T,)`` of 0 and 1, of every sample, as ``Switching.marks``."""
        columns = stack([*tokens])[:, None, :, None].expand(-1, -1, -1, MARKS).to(self.embeds.dtype)
        return to_device(columns.contiguous(), self.embeds.device)


class HeardSteering(CEASESteering):
    """Switches samples in whose attention a concept was heard; the place is where it is heard.

    ``listener`` hears the method's concepts; of them those of ``concepts`` ``(B, C)``, 0 and 1, count.
    """

    def __init__(self, listener: Listener, concepts: Tensor, *batch: Any):
        super().__init__(*batch)
        self.listener = listener
        self.concepts = to_device(concepts, self.embeds.device)[:, :, None]

    def begin(self, step: int, timestep: Tensor) -> None:
        super().begin(step, timestep)
        self.switching.gathers = False  # no tokens mark the place

    def hear(self, layer: Layer, query: Tensor, output: Tensor) -> None:
        """Add to the place what one layer shows of it: queries and outputs ``(B, heads, N, d)``."""
        if self.gathers and self.listener.listens(query.shape[2]):
            heard = self.listener.heard(layer, query, output).flatten(2)  # (B, C, N)
            self.place.gather((heard * self.concepts).amax(1).clamp_min(0)[None])


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
        self.known = known  # (B, C), bool, in host memory: what the text told
        self.first = first  # where the positives begin among the denoiser's rows
        self.acting = list(gated)
        self.hearing: FirstStep | None = FirstStep(listener)

    def begin(self, step: int, timestep: Tensor) -> None:
        self.stale = step == 1 and self.hearing is not None
        if step == 1 and self.hearing is not None:
            scores, self.hearing = self.hearing.scores(), None
            self.gates |= {name: scores[:, i] for i, name in enumerate(self.names)}
            # Which texts are to be heard instead is decided by what was heard: the one wait of a loop for its device.
            found = (scores >= self.threshold).cpu() & ~self.known
            if found.any():
                self.acting.append(self.late(found, self.listener))
        for part in self.acting:
            part.begin(step, timestep)

    def parts(self) -> Sequence[Steering]:
        return self.acting

    def blend(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        positives = query[self.first :], output[self.first :]
        if self.hearing is not None:
            self.hearing.add(layer, *positives)
        for part in self.acting:
            if isinstance(part, HeardSteering):
                part.hear(layer, *positives)
        return output

    def masks(self) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = {}
        for part in self.acting:
            for name, mask in part.masks().items():
                masks[name] = torch.maximum(masks[name], mask) if name in masks else mask
        return masks
