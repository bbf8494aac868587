"""Attention, opened for erasure: what a layer does in a forward, and what was made for it before the loop.

A processor has no state and is shared by all layers. What a layer works on in the batch at hand lies beside it, in
``attn.heard``: of a UNet's cross-attention the keys and values of the prompts, which depend on the text alone, and of
another text that some samples are switched to. A forward runs in one of few modes (``switching.Mode``), and does
nothing in any of them but arithmetic on tensors of fixed shapes, so that each mode is one graph::

    with state.batch(embeds, steerings):
        for each step:
            state.prepare()             # in the first step, and where a steering is ``stale``
            with state.forward():       # Mode.plain, looking, switching or gathering
                denoiser(...)
        denoiser(...)                   # Mode.given: any other forward

To compile it, compile the whole denoiser, or each of its blocks, with ``fullgraph=True, dynamic=False``; nothing here
asks which. There are as many graphs as modes that come up: a run without erasure has ``plain`` alone, ``cease`` adds
``switching`` and ``gathering``, ``cease_joint`` ``looking`` besides, a method with a branch of its own (``sld``)
``given``. A steering with a ``blend`` or ``joint`` hook runs Python of its own in each layer: it is no part of any
graph, and ``AttentionState.traceable`` is false while one is at work.

Without steerings the result is that of diffusers' own processor bit for bit, masks included; what that one does besides
is refused (``replaceable.py``). Knows nothing of concepts or of gates.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from pipeline.errors import ConfigError, check_given, named_in_errors
from pipeline.models.layers import QKV, JointLayer, Layer, split_heads
from pipeline.models.switching import Carrying, Mode, OtherText, Switching


class AttentionSteering(Protocol):
    """What may act inside attention. Rows are those of the denoiser's batch: all negatives, then all positives."""

    where: str  # what a config names it by: what its code raises names that
    switching: Switching | None
    carrying: Carrying | None

    def parts(self) -> "Sequence[AttentionSteering]":
        """Return the steerings that ``switch``."""

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Change keys and values ``(R, heads, T, d)``; called once per batch and layer, and where one is stale."""

    def switch(self, layer: Layer, key: Tensor, value: Tensor) -> OtherText:
        """Return what is switched to, given the prompts' own; called just as ``text``, where there is ``switching``."""

    def blend(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        """Change the output ``(R, heads, N, d)`` for queries ``(R, heads, N, d)``; called at every step."""

    def joint(self, layer: JointLayer, image: QKV, text: QKV, output: Tensor) -> Tensor:
        """Change what the image gets, ``output (R, heads, N, d)``; called at every step and layer."""

    def overrides(self, hook: str) -> bool:
        """Tell whether it has a hook of this name."""


class Heard:
    """What one layer works on in the batch at hand, made by ``AttentionState.prepare``; as ``attn.heard`` beside it."""

    def __init__(self, layer: Layer, state: "AttentionState"):
        self.layer = layer
        self.state = state
        self.key: Tensor | None = None  # (R, heads, T, d), in cross-attention, as are the values and the other texts
        self.value: Tensor | None = None
        self.others: list[OtherText] = []  # of each of the state's switchings
        self.watched: list[bool] = []  # in joint attention: by each of the state's carryings
        self.maps: list[Tensor] = []  # of each of them that gathers here, after a forward


class AttentionState:
    """Who steers the batch at hand of one model, and in which mode the forward runs."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.joint_layers: list[JointLayer] = []
        self.mode = Mode.given
        self.steered = False  # does anyone act in the forward that runs now?
        self.switchings: list[Switching] = []
        self.carryings: list[Carrying] = []
        self.blends: Sequence[AttentionSteering] = ()
        self.joints: Sequence[AttentionSteering] = ()
        self.masked = False  # do the steerings know which tokens of the batch are masked?
        self.tokens = 0  # of a text, in the batch at hand
        self._heard: list[Heard] = []
        self._steerings: Sequence[AttentionSteering] = ()
        self._embeds: Tensor | None = None

    def open(self, layers: Sequence[Layer]) -> None:
        """Take charge of *layers*, which have a processor that asks ``attn.heard``."""
        self.layers = [layer for layer in layers if not isinstance(layer, JointLayer)]
        self.joint_layers = [layer for layer in layers if isinstance(layer, JointLayer)]
        self._heard = [Heard(layer, self) for layer in layers]
        self._take_over()

    @property
    def traceable(self) -> bool:
        """Tell whether forwards are arithmetic alone: one graph a mode."""
        return not (self.blends or self.joints)

    @contextmanager
    def batch(self, embeds: Tensor, steerings: Sequence[AttentionSteering], masked: bool = False) -> Iterator[None]:
        """While inside, ``prepare`` and ``forward`` are about a batch of the texts *embeds* ``(R, T, D)``.

        ``masked`` says that the steerings were told of the mask (``Conditioning.mask``).
        """
        self.masked, self.tokens = masked, embeds.shape[1]
        self._embeds, self._steerings = embeds, steerings
        self.blends = [s for s in steerings if s.overrides("blend")]
        self.joints = [s for s in steerings if s.overrides("joint")]
        self._take_over()
        try:
            yield
        finally:
            self._embeds, self._steerings, self.blends, self.joints = None, (), (), ()
            self.switchings, self.carryings = [], []
            for heard in self._heard:
                heard.key, heard.value, heard.others, heard.maps = None, None, [], []

    def prepare(self) -> None:
        """Make keys and values of all layers, steered, and those of what is switched to."""
        assert self._embeds is not None
        switch: list[tuple[str, AttentionSteering]] = []
        for steering in self._steerings:
            with named_in_errors(steering.where):
                switch += [(steering.where, part) for part in steering.parts()]
        self.switchings = [part.switching for _, part in switch if part.switching is not None]
        self.carryings = [s.carrying for s in self._steerings if s.carrying is not None]
        for heard in self._heard:
            layer = heard.layer
            heard.watched = [layer.index in carrying.watched for carrying in self.carryings]
            if isinstance(layer, JointLayer):
                continue
            key, value = projected(layer.module, self._embeds)
            for steering in self._steerings:
                with named_in_errors(steering.where):
                    key, value = steering.text(layer, key, value)
            heard.key, heard.value, heard.others = key, value, []
            for where, part in switch:
                with named_in_errors(where):
                    other = part.switch(layer, key, value)
                    check_given("switch", other, OtherText, "an OtherText")
                    heard.others.append(other)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """While inside, the forward is the batch's own; after it each that gathers has its maps."""
        acting: list[Switching | Carrying] = [*self.switchings, *self.carryings]
        gathering = [one for one in acting if one.gathers]
        self.mode = Mode.plain
        if any(one.switches for one in acting):
            self.mode = Mode.gathering if gathering else Mode.switching
        elif gathering:
            self.mode = Mode.looking
        self.steered = bool(acting or self.blends or self.joints)
        try:
            yield
        finally:
            self.mode, self.steered = Mode.given, False
        for heard in self._heard:
            for one, maps in zip(gathering, heard.maps, strict=False):  # fine layers have none
                one.maps.append(maps)
            heard.maps = []

    @contextmanager
    def checked(self) -> Iterator[None]:
        """While inside, look which layers of cross-attention are given the batch's own embeddings; after it, raise
        ``ConfigError`` where some are given others: keys and values of the batch would not be those of what they hear.
        """
        deaf = {layer.name for layer in self.layers}
        handles = []
        for layer in self.layers:

            def note(_: nn.Module, args: Any, kwargs: dict[str, Any], name: str = layer.name) -> None:
                if kwargs.get("encoder_hidden_states") is self._embeds:
                    deaf.discard(name)

            handles.append(layer.module.register_forward_pre_hook(note, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if deaf:
            raise ConfigError(
                f"{min(deaf)} does not hear the text as its family encoded it (Conditioning.embeds): what is erased "
                "there would be erased from another text"
            )

    def _take_over(self) -> None:
        """Let the layers work for this state, where another may have opened them since."""
        for heard in self._heard:
            heard.layer.module.heard = heard


def projected(attn: Any, embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values ``(R, heads, T, d)`` that a layer makes of texts ``(R, T, D)``."""
    return split_heads(attn.to_k(embeds), attn.heads), split_heads(attn.to_v(embeds), attn.heads)
