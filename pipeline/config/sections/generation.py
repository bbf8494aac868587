"""How pictures are drawn: the section ``generation`` of a config."""

# ruff: noqa: RUF009 (identity() and operational() are dataclasses.field with a class)

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.config.sections.declare import identity

AUTO = "auto"  # of what is not settled yet: the size of pictures, how many are in a batch


class LongPrompts(StrEnum):
    """What becomes of a prompt with more tokens than a text encoder reads at once (CLIP: 75 and two special ones)."""

    truncate = "truncate"  # what is beyond is not read
    chunks = "chunks"  # it is read in chunks of 75, whose embeddings are put one after another


class PromptSyntax(StrEnum):
    """What is more than text in a prompt."""

    plain = "plain"  # nothing
    a1111 = "a1111"  # weights, (word:1.3) ((word)) [word], escapes and BREAK, as A1111's web UI reads them


class Compile(StrEnum):
    """How much of the model torch.compile makes one kernel of where it was many, by its default mode of inductor."""

    auto = "auto"  # by device, family and how much there is to draw; settled before the run (pipeline.models.compiling)
    none = "none"
    blocks = "blocks"  # each repeated block of the denoiser (pipeline.models.family), and the VAE's decoder
    full = "full"  # all of the denoiser, and the VAE's decoder


class Attention(StrEnum):
    """Which kernel computes attention while pictures are drawn."""

    auto = "auto"  # settled before the identity is computed; native, as nothing else was tried on a card
    native = "native"  # what torch chooses
    flash3 = "flash3"  # FlashAttention-3, of the package fa3-fwd
    cudnn = "cudnn"


class Quantize(StrEnum):
    """In what the denoiser's large linear layers compute."""

    none = "none"  # the model's dtype
    fp8 = "fp8"  # 8 bits, scaled row by row, by torchao


@dataclass(kw_only=True)
class GenerationConfig:
    steps: int = identity(25)
    guidance: float = identity(5.0)
    # [width, height] in pixels, or "auto": the model's own, as where a file says nothing (pipeline.models.settle).
    size: list[int] | str = identity(factory=lambda: [64, 64])
    batch_size: Any = identity(32)  # a number, or "auto": found once, before the run (pipeline.generation.batch)
    negative_prompt: str = identity("")
    long_prompts: LongPrompts = identity(LongPrompts.truncate)
    prompt_syntax: PromptSyntax = identity(PromptSyntax.plain)
    # Decode a picture larger than the model's own in overlapping tiles, for memory that holds no whole one. It changes
    # what is seen, a little and most at the seams; decoding few pictures of a batch at a time, as is always done, is
    # no setting because it follows from their size alone.
    vae_tiling: bool | None = identity(None, silent=True)
    # It changes bytes (by rounding) and saves a third of a GPU's time, for a minute or two of compiling before the
    # first shard. Where a file says nothing: auto.
    compile: Compile = identity(Compile.none, silent=True)
    attention: Attention = identity(Attention.native, silent=True)
    quantize: Quantize = identity(Quantize.none, silent=True)

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height. Raises ``ValueError`` while ``size`` is "auto"."""
        if isinstance(self.size, str):
            raise ValueError("generation.size is auto; settle it first (pipeline.models.settle)")
        width, height = self.size
        return width, height
