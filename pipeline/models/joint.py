"""Joint attention of text and image tokens (SD3, FLUX), opened at one place: what the image gets out of it.

Here text tokens answer the image and change from layer to layer and from step to step, so there are no keys and values
of a prompt to compute once. Another text can nevertheless be listened to within the same forward: it is carried through
the layers beside the batch's own (``JointLayer.follow``), meeting the same image tokens, for the rows that want it.

Without steerings the result is that of diffusers' own processors bit for bit. Knows nothing of concepts or of gates.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, cat
from torch.nn.functional import scaled_dot_product_attention

from pipeline.models.attention import AttentionState, Layer, merge_heads
from pipeline.models.family import Conditioning, Family, TextProjection


@dataclass(frozen=True)
class QKV:
    """Queries, keys and values ``(R, heads, n, d)`` of some tokens, as they enter the attention."""

    query: Tensor
    key: Tensor
    value: Tensor

    def rows(self, index: Tensor | slice) -> "QKV":
        return QKV(self.query[index], self.key[index], self.value[index])


@dataclass(frozen=True)
class EnteredText:
    """A text on its way through the denoiser: ``tokens (R, T, C)``, and ``condition (R, C)``, the vector of time and
    pooled text that modulates its layers."""

    tokens: Tensor
    condition: Tensor


class JointSteering(Protocol):
    """What may act inside joint attention. Rows are those of the denoiser's batch: negatives, then positives."""

    def joint(self, layer: "JointLayer", image: QKV, text: QKV, output: Tensor) -> Tensor:
        """Change what the image gets, ``output (R, heads, N, d)``; called at every step and layer."""


@dataclass(frozen=True)
class JointLayer(Layer):
    """One layer in which image and text attend to each other. ``block`` is the transformer block round it."""

    block: Any = field(compare=False, repr=False)
    text_first: ClassVar[bool]  # the order of tokens in diffusers' own processor: another sums with other rounding

    @abstractmethod
    def follow(self, text: EnteredText, image: QKV) -> tuple[Tensor, EnteredText]:
        """Let *image* meet another *text* of as many rows; return what the image gets from text and image together,
        ``(R, heads, N, d)``, and the text as it leaves the layer."""

    def meet(self, text: QKV, image: QKV) -> tuple[Tensor, Tensor]:
        """Return what image ``(R, heads, N, d)`` and text ``(R, T, heads * d)`` get from attending to both."""
        first, second = (text, image) if self.text_first else (image, text)
        output = scaled_dot_product_attention(
            cat([first.query, second.query], dim=2),
            cat([first.key, second.key], dim=2),
            cat([first.value, second.value], dim=2),
        )
        one, other = output.tensor_split([first.query.shape[2]], dim=2)
        heard, seen = (one, other) if self.text_first else (other, one)
        return seen, merge_heads(heard)


class JointFamily(Family):
    """What SD3 and FLUX have in common: a transformer that text enters in two places, and that predicts a flow."""

    lacks: ClassVar[dict[str, str]] = {
        "cross_attention": "its text tokens change with the image in every layer and step (joint attention), so there "
        "are no keys and values of a prompt to work on; cease_joint steers joint attention",
        "token_ids": "T5 has a vocabulary of its own, so that ids of one tokenizer alone spell no text",
    }
    denoiser_name = "transformer"
    vae_settings = ("scaling_factor", "shift_factor")
    flow = True

    def __init__(self, pipe: Any, device: torch.device):
        super().__init__(pipe, device)
        self.state: AttentionState | None = None

    def runs_on(self, conditioning: Conditioning) -> None:
        """Tell the attached processors, which see the text only after its first layers, whose forward begins."""
        if self.state is not None:
            self.state.running = conditioning.embeds

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many layers let text and image attend to each other."""

    @abstractmethod
    def enter(self, conditioning: Conditioning, timestep: Tensor, guidance: float) -> EnteredText:
        """Return *conditioning* as it enters the first layer."""

    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipe.vae
        return vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]

    def text_projections(self) -> list[TextProjection]:
        projections = []
        for path, kind in (("context_embedder", "context"), ("time_text_embed.text_embedder.linear_1", "pooled")):
            module = self.pipe.transformer.get_submodule(path)
            name = f"transformer.{path}"
            projections.append(TextProjection(f"{name}.weight", kind, module.weight, name, module.in_features))
        return projections
