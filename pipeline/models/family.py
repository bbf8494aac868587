"""What differs between architectures, behind one interface: text in, prediction, pixels out, and where text enters.

Everything above this (methods, the sampling loop) speaks of ``Conditioning``, latents ``(B, C, h, w)`` and layers, and
never of a pipeline class. A family that packs its latents (FLUX) does so inside ``predict`` and ``decode``.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pipeline.config.sections.generation import Compile
from pipeline.errors import ConfigError
from pipeline.models.attention import AttentionState
from pipeline.models.layers import Layer
from pipeline.models.transfer import to_device


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is told of prompts. The first dimension of every tensor is the prompt.

    ``embeds`` is float ``(B, T, D)``, the text tokens that attention sees; ``pooled`` is ``(B, P)`` where the
    architecture has one vector for the whole prompt besides; ``mask`` is bool ``(B, T)``, which tokens attention may
    see, where it may not see all. A changed one is made by ``dataclasses.replace``, so that what a method does not know
    of stays.
    """

    embeds: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return self.embeds.shape[0]

    def rows(self, index: Tensor | slice | list[int]) -> Self:
        """Return the conditioning of some of the prompts, in the order of *index*."""
        return self._each(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Self:
        return self._each(lambda tensor: to_device(tensor, torch.device(device)))

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Return all rows of *parts*, one after another. Raises ``ValueError`` for what some of them have alone."""
        joined: dict[str, Any] = {}
        for f in fields(parts[0]):
            tensors = [tensor for part in parts if (tensor := getattr(part, f.name)) is not None]
            if len(tensors) not in (0, len(parts)):
                raise ValueError(f"{len(tensors)} of {len(parts)} conditionings have {f.name}; expected all or none")
            joined[f.name] = torch.cat(tensors) if tensors else None
        return replace(parts[0], **joined)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return it with every tensor changed."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {name: t if t is None else change(t) for name, t in tensors.items()}
        return replace(self, **changed)


@dataclass(frozen=True)
class TextStream:
    """One tokenizer's stretch of the text sequence: its token ``i`` is row ``offset + i`` of ``embeds``.

    SD and SDXL have one; SD3 has CLIP's at 0 and T5's at 77. ``causal`` tells that a token knows those before it only.
    """

    tokenizer: Any
    offset: int
    length: int
    causal: bool

    @property
    def first(self) -> int:
        """The row of the first token that can be a word's: T5 has no start token before it."""
        return self.offset + (self.tokenizer.bos_token_id is not None)


@dataclass(frozen=True)
class TextProjection:
    """A linear layer fed directly by text: where an edit of weights can take a concept out.

    ``name`` is the weight's name from the pipeline on ("unet.….to_k.weight"); ``kind`` is "key", "value", or, where
    all text enters through one layer, "context" (tokens) or "pooled" (``Conditioning.pooled``); ``layer`` is the name
    of the module that holds it. Text is multiplied with the first ``width`` columns; others of the weight, as in SDXL's
    pooled projection, are fed by something else.
    """

    name: str
    kind: str
    weight: Tensor  # (out, in), the model's own parameter
    layer: str
    width: int


class Family(ABC):
    """Drives one diffusers pipeline. ``name`` is how messages and tables call the architecture.

    ``offers`` lists what methods may ask for: "text_projections" (linear layers fed by text), "cross_attention" (keys
    and values that depend on the prompt alone), "joint_attention" (text and image tokens in one attention),
    "guidance" (a negative branch), "token_ids" (``encode_ids``), "chunks" (prompts may be read in several chunks and
    with weights, as ``reading`` tells; asks for ``encode_ids`` and a single stream). ``lacks`` gives, for what is not
    offered, the reason that a refused user reads.
    """

    name: ClassVar[str]
    offers: ClassVar[frozenset[str]]
    lacks: ClassVar[dict[str, str]] = {}
    load_options: ClassVar[dict[str, Any]] = {}  # what from_pretrained is told besides, e.g. to leave a part out
    denoiser_name: ClassVar[str]  # "unet" or "transformer": the pipeline's attribute, and the prefix of names
    repeated: ClassVar[tuple[str, ...]] = ()  # classes of ``blocks``; by default those that diffusers tells
    summary_networks: ClassVar[tuple[str, ...]] = ()  # those that ``summaries`` runs; none: it may run any
    vae_settings: ClassVar[tuple[str, ...]] = ("scaling_factor",)  # numbers of its VAE by which latents are scaled
    flow: ClassVar[bool] = False  # predicts a flow, which only flow-matching schedulers can integrate
    compiled: ClassVar[Compile] = Compile.full  # what ``generation.compile: auto`` comes to where it pays
    # From how many megapixels through the denoiser on compiling repays its time on a recent GPU, with some to spare:
    # pictures x steps x rows of a picture x megapixels. The default is of a whole UNet: 78 s and a third saved on SD
    # 2.1, 100 s on SDXL (H100).
    repays: ClassVar[float] = 25_000

    def __init__(self, pipe: Any, device: torch.device):
        self.pipe = pipe
        self.device = device

    @classmethod
    @abstractmethod
    def joints(cls, pipe: Any) -> dict[str, tuple[Any, Any]]:
        """Return where the parts of *pipe* meet, by a name for messages: what is there, and what must be."""

    @property
    def denoiser(self) -> nn.Module:
        denoiser: nn.Module = getattr(self.pipe, self.denoiser_name)
        return denoiser

    @property
    def decoder(self) -> nn.Module:
        """What ``decode`` spends its time in, for ``generation.compile``."""
        decoder: nn.Module = self.pipe.vae.decoder
        return decoder

    @property
    def blocks(self) -> list[nn.Module]:
        """What ``generation.compile: blocks`` compiles of the denoiser, one by one."""
        names = self.repeated or getattr(self.denoiser, "_repeated_blocks", None) or ()
        return [module for module in self.denoiser.modules() if type(module).__name__ in names]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    @property
    @abstractmethod
    def streams(self) -> tuple[TextStream, ...]:
        """The tokenizers whose tokens attention sees, in the order of ``Conditioning.embeds``."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Encode *texts*, padded to the full length and truncated to it, as one batch on the device."""

    def encode_negative(self, texts: Sequence[str]) -> Conditioning:
        """Encode negative prompts."""
        return self.as_negative(self.encode(texts), texts)

    def as_negative(self, encoded: Conditioning, texts: Sequence[str]) -> Conditioning:
        """Return what *texts*, which were *encoded*, say as negative prompts. Families in which no negative prompt is
        not the empty text override it."""
        return encoded

    def summary(self, text: str) -> Tensor:
        """Return one vector for the whole *text*: the pooled one where there is one, else its end-of-text token's."""
        return self.summaries([text])[0]

    @torch.no_grad()
    def summaries(self, texts: Sequence[str]) -> Tensor:
        """Return the ``summary`` of each of *texts*, encoded as one batch: ``(B, D)``. What texts make of it beyond
        rounding depends on neither the batch nor the padding, so families encode no more of that than they must."""
        encoded, stream = self.encode(list(texts)), self.streams[0]
        if encoded.pooled is not None:
            return encoded.pooled
        ids = stream.tokenizer(list(texts), truncation=True, max_length=stream.length).input_ids
        return torch.stack([row[stream.offset + len(own) - 1] for row, own in zip(encoded.embeds, ids, strict=True)])

    def pieces(self, words: Sequence[str]) -> list[int]:
        """Return in how many tokens the encoder of ``summaries`` reads each of *words*."""
        ids = self.pipe.tokenizer(list(words), add_special_tokens=False).input_ids
        return [len(own) for own in ids]

    def encode_ids(self, ids: Tensor) -> Conditioning:
        """Encode token ids ``(B, length)`` of the first stream as ``encode`` does those of texts."""
        raise NotImplementedError(f"{self.name} does not offer token_ids")

    @abstractmethod
    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Return ``(C, h, w)`` of the latents of one picture; ``ConfigError`` for a size that cannot be made."""

    def set_timesteps(self, scheduler: Any, steps: int, width: int, height: int) -> Tensor:
        """Start *scheduler* anew and return its timesteps. Families whose schedule depends on the size override it.

        They stay in host memory, as do the scheduler's noise levels: what its steps look up there makes nobody wait for
        the device.
        """
        scheduler.set_timesteps(steps, device="cpu")
        timesteps: Tensor = scheduler.timesteps
        return timesteps

    def check_steps(self, scheduler: Any, steps: int, width: int, height: int, key: str) -> None:
        """Raise ``ConfigError``, about *key*, for more steps than *scheduler* can do."""
        try:
            self.set_timesteps(copy.deepcopy(scheduler), steps, width, height)
        except ValueError as error:
            raise ConfigError(f"{key}: is {steps}, which {type(scheduler).__name__} cannot do: {error}") from error

    @abstractmethod
    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        """Run the denoiser once on ``(R, C, h, w)`` latents, scaled by the scheduler, with one prompt a row.

        Returns what the scheduler expects of the model (noise, velocity or flow), of the latents' shape. ``guidance``
        is used only by models into which it was distilled.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents ``(B, C, h, w)`` into pixels ``(B, 3, H, W)`` in about -1..1."""

    @abstractmethod
    def text_projections(self) -> list[TextProjection]:
        """Return every linear layer fed directly by text, in the order of the denoiser's modules."""

    @abstractmethod
    def attach(self, state: AttentionState) -> list[Layer]:
        """Let *state* take part in every attention layer that sees text, and return those layers in order."""


def check_sides(width: int, height: int, multiple: int, smallest: int, what: str, largest: int | None = None) -> None:
    """Raise ``ConfigError`` where a picture's sides are no multiples of *multiple* (of *what*) or out of range."""
    for side, pixels in (("width", width), ("height", height)):
        if pixels % multiple:
            near = max(smallest, round(pixels / multiple) * multiple)
            raise ConfigError(
                f"generation.size: {side} {pixels} is not a multiple of {multiple}, as this model's {what} needs "
                f"(nearest: {near})"
            )
        if pixels < smallest:
            raise ConfigError(f"generation.size: {side} {pixels} is below {smallest}, this model's smallest")
        if largest is not None and pixels > largest:
            raise ConfigError(f"generation.size: {side} {pixels} is above {largest}, this model's largest")
