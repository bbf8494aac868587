"""The attention layers that see text, and what goes through them.

A UNet's cross-attention is a ``Layer``; where text and image attend to each other (SD3, FLUX) it is a ``JointLayer``.
There text tokens answer the image and change from layer to layer and from step to step, so there are no keys and values
of a prompt to compute once. Another text can nevertheless be listened to within the same forward: it is carried through
the layers beside the batch's own (``JointLayer.follow``), meeting the same image tokens, for the rows that want it.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, cat


@dataclass(frozen=True)
class Layer:
    """One attention layer that sees text. ``module`` is diffusers' ``Attention``."""

    name: str
    index: int  # in the order in which the denoiser runs them
    heads: int
    module: Any = field(compare=False, repr=False)


@dataclass(frozen=True)
class QKV:
    """Queries, keys and values ``(R, heads, n, d)`` of some tokens, as they enter the attention."""

    query: Tensor
    key: Tensor
    value: Tensor

    def rows(self, index: Tensor | slice) -> "QKV":
        return QKV(self.query[index], self.key[index], self.value[index])

    def before(self, other: "QKV") -> "QKV":
        """Return these, then *other*."""
        pairs = ((self.query, other.query), (self.key, other.key), (self.value, other.value))
        return QKV(*(cat(pair, dim=2) for pair in pairs))

    def split(self, count: int) -> "tuple[QKV, QKV]":
        """Return those of the first *count* tokens, and of the others."""
        first, second = zip(*(x.tensor_split([count], dim=2) for x in (self.query, self.key, self.value)), strict=True)
        return QKV(*first), QKV(*second)


class EnteredText(NamedTuple):
    """A text on its way through the denoiser: ``tokens (R, T, C)``, and ``condition (R, C)``, the vector of time and
    pooled text that modulates its layers."""

    tokens: Tensor
    condition: Tensor


@dataclass(frozen=True)
class JointLayer(Layer):
    """One layer in which image and text attend to each other. ``block`` is the transformer block round it."""

    block: Any = field(compare=False, repr=False)
    text_first: ClassVar[bool]  # the order of tokens in diffusers' own processor: another sums with other rounding

    @abstractmethod
    def follow(self, text: EnteredText, image: QKV) -> tuple[Tensor, EnteredText]:
        """Let *image* meet another *text* of as many rows; return what the image gets from text and image together,
        ``(R, heads, N, d)``, and the text as it leaves the layer."""

    @abstractmethod
    def attend(self, tokens: QKV) -> Tensor:
        """Return what *tokens* get from attending to each other, ``(R, heads, n, d)``, computed as in diffusers' own
        processor."""

    def meet(self, text: QKV, image: QKV) -> tuple[Tensor, Tensor]:
        """Return what image ``(R, heads, N, d)`` and text ``(R, T, heads * d)`` get from attending to both."""
        first, second = (text, image) if self.text_first else (image, text)
        output = self.attend(first.before(second))
        one, other = output.tensor_split([first.query.shape[2]], dim=2)
        heard, seen = (one, other) if self.text_first else (other, one)
        return seen, merge_heads(heard)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(R, N, heads * d)`` to ``(R, heads, N, d)``."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """``(R, heads, N, d)`` to ``(R, N, heads * d)``."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)
