"""What a forward of the denoiser may do besides drawing: switch samples to another text, and gather who looks where.

Data alone, made before the loop and changed between its steps; what is done with it is in ``attention.py``. All B
samples of a batch go through a switch, so that forwards of any batch are one graph: of those that are not concerned the
weight is 0 and the other text their own, which leaves their bits alone.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pipeline.models.layers import EnteredText

MARKS = 8  # columns, all alike, in which a token is marked: kernels of attention want no fewer


class Mode(Enum):
    """What a forward of the denoiser does besides attending to text."""

    given = "given"  # nothing; it is no forward of the batch, and works on the text that it is given
    plain = "plain"  # nothing
    looking = "looking"  # in joint attention: notes where the picture attends to tokens that are marked
    switching = "switching"  # positives are switched to another text, as far as the weights say
    gathering = "gathering"  # both


@dataclass(frozen=True)
class OtherText:
    """What one layer of cross-attention knows of another text for the positives of a batch: ``key`` and ``value
    (B, heads, T, d)``, and ``own``, the keys of the prompts among which attention to their marks is gathered."""

    key: Tensor
    value: Tensor
    own: Tensor


@dataclass(kw_only=True)
class Switching:
    """How the positives of a batch are switched in cross-attention: ``lerp(prompt's, other's, weight)``.

    ``weights`` are, by a layer's number of positions N, ``(B, N, 1)`` in the denoiser's dtype. ``own_mask`` and
    ``mask``, bool ``(B, 1, 1, T)``, tell which tokens of the prompts and of the other text may be seen, where not all
    may. Where it ``gathers``, layers of at most ``most`` positions note how much each position attends to ``own_marks``
    and ``marks``, 1 or 0 ``(B, 1, T, MARKS)``, of the two texts: the maps of the last forward, float32 ``(2, B, N)``.
    """

    own_marks: Tensor
    marks: Tensor
    most: int
    own_mask: Tensor | None = None
    mask: Tensor | None = None
    weights: Mapping[int, Tensor] = field(default_factory=dict)
    gathers: bool = False
    maps: list[Tensor] = field(default_factory=list)

    @property
    def switches(self) -> bool:
        """It always does, with weights of 0 in a step that only gathers: that spares a graph, and costs less."""
        return True


@dataclass(kw_only=True)
class Carrying:
    """How the image tokens of a batch's positives are switched in joint attention, in which another text is carried
    through the layers of a forward that ``switches`` (``JointLayer.follow``).

    ``entered`` is that text on its way, of B rows; ``weights`` as in ``Switching``. Where it ``gathers``, the layers
    whose indices are in ``watched`` note how much the image attends to ``own_marks`` among all text, in ``heads`` of
    their heads: maps float32 ``(1, B, N)``.
    """

    own_marks: Tensor
    watched: Container[int]
    heads: int
    entered: EnteredText | None = None
    weights: Mapping[int, Tensor] = field(default_factory=dict)
    switches: bool = False
    gathers: bool = False
    maps: list[Tensor] = field(default_factory=list)


def attention_to(query: Tensor, key: Tensor, marks: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the share of each position's attention that goes to marked tokens, the mean of all heads: float32
    ``(B, N)``, for queries ``(B, heads, N, d)``, keys ``(B, heads, T, d)`` and marks ``(B, 1, T, MARKS)``.

    It is attention with the marks for values, so that no ``(N, T)`` is written out.
    """
    if query.device.type == "cpu":  # whose kernel wants values as wide as keys
        marks = marks[..., :1].expand(-1, -1, -1, query.shape[3]).contiguous().expand(-1, query.shape[1], -1, -1)
    else:  # whose kernels are not to be trusted with values that all heads share: some fail, some are wrong
        marks = marks.expand(-1, query.shape[1], -1, -1).contiguous()
    seen = scaled_dot_product_attention(query, key, marks, attn_mask=mask)
    return seen[..., 0].float().mean(1)
