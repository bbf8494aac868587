"""Attention to text in a UNet, opened for erasure: one processor without state, shared by all layers.

What a layer works on in the batch at hand is made before the loop and lies beside it, in ``attn.heard``: keys and
values of the prompts, which depend on the text alone, and those of another text that some samples are switched to. A
forward runs in one of four modes (``Mode``), and does nothing in any of them but arithmetic on tensors of fixed shapes,
so that each mode is one graph::

    with state.batch(embeds, steerings):
        for each step:
            state.prepare()             # in the first step, and where a steering is ``stale``
            with state.forward():       # Mode.plain, switching or gathering
                denoiser(...)
        denoiser(...)                   # Mode.given: any forward on other embeddings

To compile it, compile the whole UNet, or each of its blocks, with ``fullgraph=True, dynamic=False``; nothing here asks
which. There are as many graphs as modes that come up: a run without erasure has ``plain`` alone, ``cease`` adds the two
others, a method with a branch of its own (``sld``) adds ``given``. A steering with a ``blend`` hook runs Python of its
own in each layer: it is no part of any graph, and ``AttentionState.traceable`` is false while one is at work.

Without steerings the result is that of diffusers' own processor bit for bit, masks included; what that one does besides
is refused (``replaceable.py``). Knows nothing of concepts or of gates.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn, stack
from torch.nn.functional import scaled_dot_product_attention

from pipeline.errors import ConfigError
from pipeline.models.layers import QKV, JointLayer, Layer, merge_heads, split_heads


class Mode(Enum):
    """What a forward of the denoiser does besides attending to text."""

    given = "given"  # nothing; keys and values are made of the text that it is given
    plain = "plain"  # nothing; keys and values are those of the batch, as are they in all that follow
    switching = "switching"  # positives are switched to another text, as far as the weights say
    gathering = "gathering"  # the same, and it is noted where the picture attends to tokens that are marked


@dataclass(frozen=True)
class OtherText:
    """What one layer knows of another text for the positives of a batch: ``key`` and ``value (B, heads, T, d)``, and
    ``own``, the keys of the prompts among which attention to their marked tokens is gathered."""

    key: Tensor
    value: Tensor
    own: Tensor


@dataclass
class Switching:
    """How the positives of one batch are switched to another text: ``lerp(prompt's, other's, weight)``.

    All B samples go through it: of those that are not concerned the weight is 0 and the other text their own, which
    leaves their bits alone. ``weights`` are, by a layer's number of positions N, ``(B, 1, N, 1)`` in the denoiser's
    dtype. ``own_mask`` and ``mask``, bool ``(B, 1, 1, T)``, tell which tokens of the prompts and of the other text may
    be seen, where not all may. Where it ``gathers``, layers of at most ``most`` positions note how much each position
    attends to ``own_marks`` and ``marks``, 1 or 0 ``(B, 1, T, MARKS)``, of the two texts; what they noted is ``maps``.
    """

    weights: Mapping[int, Tensor]
    own_marks: Tensor
    marks: Tensor
    most: int
    own_mask: Tensor | None = None
    mask: Tensor | None = None
    gathers: bool = False
    maps: list[Tensor] = field(default_factory=list)  # of each layer in the last forward: float32 (2, B, N)


MARKS = 8  # columns, all alike, in which a token is marked: kernels of attention want as many


class AttentionSteering(Protocol):
    """What may act inside attention. Rows are those of the denoiser's batch: all negatives, then all positives."""

    switching: Switching | None

    def parts(self) -> "Sequence[AttentionSteering]":
        """Return the steerings that ``switch``."""

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Change keys and values ``(R, heads, T, d)``; called once per batch and layer, and where one is stale."""

    def switch(self, layer: Layer, key: Tensor, value: Tensor) -> OtherText:
        """Return what is switched to, given the prompts' own; called just as ``text``, where there is ``switching``."""

    def blend(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        """Change the output ``(R, heads, N, d)`` for queries ``(R, heads, N, d)``; called at every step."""

    def overrides(self, hook: str) -> bool: ...


class JointSteering(Protocol):
    """What may act inside joint attention. Rows are those of the denoiser's batch: negatives, then positives."""

    def joint(self, layer: JointLayer, image: QKV, text: QKV, output: Tensor) -> Tensor:
        """Change what the image gets, ``output (R, heads, N, d)``; called at every step and layer."""


class Heard:
    """What one layer works on in the batch at hand, made by ``AttentionState.prepare``."""

    def __init__(self, layer: Layer, state: "AttentionState"):
        self.layer = layer
        self.state = state
        self.key: Tensor | None = None  # (R, heads, T, d)
        self.value: Tensor | None = None
        self.others: list[OtherText] = []  # of each of the state's switchings
        self.maps: list[Tensor] = []  # of each of them that gathers, after a forward


class AttentionState:
    """Who steers the batch at hand of one model, and in which mode the forward runs."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.mode = Mode.given
        self.blends: Sequence[AttentionSteering] = ()
        self.switchings: list[Switching] = []
        self.joint_steerings: Sequence[JointSteering] = ()
        self.masked = False  # do the steerings know which tokens of the batch are masked?
        self.joined = False  # has a forward of this batch come to a layer of joint attention?
        self.running: Tensor | None = None  # the embeddings that a transformer with joint attention runs on now
        self._heard: list[Heard] = []
        self._steerings: Sequence[Any] = ()
        self._embeds: Tensor | None = None

    def open(self, layers: Sequence[Layer]) -> None:
        """Take charge of *layers* of cross-attention, whose processor is ``TEXT``."""
        self.layers = list(layers)
        self._heard = [Heard(layer, self) for layer in layers]
        self._take_over()

    @property
    def traceable(self) -> bool:
        """Tell whether forwards are arithmetic alone: one graph a mode."""
        return not (self.blends or self.joint_steerings)

    @contextmanager
    def batch(self, embeds: Tensor, steerings: Sequence[Any], masked: bool = False) -> Iterator[None]:
        """While inside, ``prepare`` and ``forward`` are about a batch of the texts *embeds* ``(R, T, D)``.

        ``masked`` says that the steerings were told of the mask (``Conditioning.mask``).
        """
        self.masked, self.joined = masked, False
        self._embeds, self._steerings = embeds, steerings
        self.blends = [s for s in steerings if s.overrides("blend")]
        self.joint_steerings = [s for s in steerings if s.overrides("joint")]
        self._take_over()
        try:
            yield
        finally:
            self._embeds, self._steerings, self.blends, self.joint_steerings = None, (), (), ()
            self.switchings = []
            for heard in self._heard:
                heard.key, heard.value, heard.others, heard.maps = None, None, [], []

    def prepare(self) -> None:
        """Make keys and values of all layers, steered, and those of what is switched to."""
        assert self._embeds is not None
        switch = [part for steering in self._steerings for part in steering.parts()]
        self.switchings = [part.switching for part in switch]
        for heard in self._heard:
            layer = heard.layer
            key, value = projected(layer.module, self._embeds)
            for steering in self._steerings:
                key, value = steering.text(layer, key, value)
            heard.key, heard.value = key, value
            heard.others = [part.switch(layer, key, value) for part in switch]

    @contextmanager
    def forward(self) -> Iterator[None]:
        """While inside, the forward is the batch's own; after it each switching has its maps."""
        self.mode = Mode.plain
        if self.switchings:
            self.mode = Mode.gathering if any(s.gathers for s in self.switchings) else Mode.switching
        try:
            yield
        finally:
            self.mode = Mode.given
        gathering = [switching for switching in self.switchings if switching.gathers]
        for heard in self._heard:
            for switching, maps in zip(gathering, heard.maps, strict=False):  # fine layers have none
                switching.maps.append(maps)
            heard.maps = []

    @contextmanager
    def checked(self) -> Iterator[None]:
        """While inside, look which layers are given the batch's own embeddings; after it, raise ``ConfigError`` where
        some are given others: keys and values of the batch would not be those of what they hear."""
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

    def joint_now(self) -> Sequence[JointSteering]:
        """Return who acts in the forward that runs now."""
        if self.mode is Mode.given:
            return ()
        self.joined = True
        return self.joint_steerings

    def _take_over(self) -> None:
        """Let the layers work for this state, where another may have opened them since."""
        for heard in self._heard:
            heard.layer.module.heard = heard


class TextAttention:
    """Replaces diffusers' ``AttnProcessor2_0`` in the layers of a UNet that hear text. There is one, ``TEXT``."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Map hidden states ``(R, N, C)`` to the same shape, attending to ``encoder_hidden_states (R, T, D)``.

        ``attention_mask (R, 1, T)`` is added to the logits. Raises ``ConfigError`` where a steering would act on what
        is masked and does not know it. ``temb`` is for a normalisation that ``check_cross_attention`` refuses.
        """
        heard, state = attn.heard, attn.heard.state
        rows, tokens, _ = encoder_hidden_states.shape
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, tokens, rows)
            attention_mask = attention_mask.view(rows, attn.heads, -1, attention_mask.shape[-1])
        query = split_heads(attn.to_q(hidden_states), attn.heads)  # (R, heads, N, d)
        if state.mode is Mode.given:
            key, value = projected(attn, encoder_hidden_states)
        else:
            key, value = heard.key, heard.value
        output = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        if state.mode is not Mode.given and (state.blends or state.switchings):
            if attention_mask is not None and not state.masked:
                raise ConfigError(
                    f"{heard.layer.name} masks tokens of the text, and its family does not say which "
                    "(Conditioning.mask): what acts on its output would act on others too"
                )
            output = steered(heard, query, output)
        projection: Tensor = attn.to_out[1](attn.to_out[0](merge_heads(output)))
        return projection


TEXT = TextAttention()
_SELF = AttnProcessor2_0()


def share_self_attention(denoiser: nn.Module) -> None:
    """Give all layers that have diffusers' ``AttnProcessor2_0`` the same object of it: compiled code is made anew for
    each object, as diffusers asks the processor that a layer has for its signature."""
    for module in denoiser.modules():
        if isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0:
            module.set_processor(_SELF)


def steered(heard: Heard, query: Tensor, output: Tensor) -> Tensor:
    """Return the output of one layer, ``(R, heads, N, d)`` as the query is, with what the state's steerings make of it;
    it is written over."""
    state, positions, maps = heard.state, query.shape[2], []
    for steering in state.blends:
        output = steering.blend(heard.layer, query, output)
    for switching, other in zip(state.switchings, heard.others, strict=True):
        positives = query[query.shape[0] - other.key.shape[0] :]
        if switching.gathers and positions <= switching.most:
            own = attention_to(positives, other.own, switching.own_marks, switching.own_mask)
            maps.append(stack([own, attention_to(positives, other.key, switching.marks, switching.mask)]))
        switched = scaled_dot_product_attention(positives, other.key, other.value, attn_mask=switching.mask)
        output[query.shape[0] - other.key.shape[0] :].lerp_(switched, switching.weights[positions])
    if maps:
        heard.maps = maps
    return output


def attention_to(query: Tensor, key: Tensor, marks: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the share of each position's attention that goes to marked tokens, the mean of all heads: float32
    ``(B, N)``, for queries ``(B, heads, N, d)``, keys ``(B, heads, T, d)`` and marks ``(B, 1, T, MARKS)``.

    It is attention with the marks for values, so that no ``(N, T)`` is written out.
    """
    heads = query.shape[1]
    seen = scaled_dot_product_attention(query, key, marks.expand(-1, heads, -1, -1), attn_mask=mask)
    return seen[..., 0].float().mean(1)


def projected(attn: Any, embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values ``(R, heads, T, d)`` that a layer makes of texts ``(R, T, D)``."""
    return split_heads(attn.to_k(embeds), attn.heads), split_heads(attn.to_v(embeds), attn.heads)
