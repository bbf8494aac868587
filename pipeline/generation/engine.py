"""Planned samples in, batches of finished pixels out. Knows nothing of files, audits or shards.

Batches are of one picture size and one length of texts, and the last of each kind is padded to full size: what a
picture is computed together with is part of the plan, because a batch's shape can change its bytes.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config.schema import Config
from pipeline.erasure.method import Method, Prompts
from pipeline.erasure.recipe import CompiledRecipe, active_methods
from pipeline.errors import ConfigError
from pipeline.generation.compilation import Compilation
from pipeline.generation.pixels import Clock, finish, to_host
from pipeline.generation.sampler import Sampler
from pipeline.generation.text import PADDING, PromptPair, Texts, encode_texts
from pipeline.models.extent import Extent
from pipeline.models.kernels import check_kernels_here, install_attention
from pipeline.models.load import Model, load_model
from pipeline.models.quantize import quantize_denoiser
from pipeline.models.reading import Reader, Reading, check_reading
from pipeline.models.transfer import to_device
from pipeline.prompts import Sample, batches

EXCLUDED = "excluded"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``images`` uint8 ``(B, H, W, 3)``; ``faults[i]`` is "nan", "blank", "excluded" or None; ``gates`` float32
    ``(B,)`` by method and concept; ``extents[i]`` tells how far a prompt was read, None of an excluded one. Padding is
    not in it."""

    samples: tuple[Sample, ...]
    images: np.ndarray
    faults: list[str | None]
    gates: dict[str, np.ndarray]
    extents: list[Extent | None]
    device_seconds: float


class Engine:
    """A loaded model with its recipe, ready to generate."""

    def __init__(self, config: Config, model: Model, methods: Sequence[Method], compilation: Compilation | None = None):
        """Without a *compilation* of the *model* nothing is compiled, whatever *config* says: whoever draws little does
        not wait for it."""
        self.config = config
        self.model = model
        self.methods = tuple(methods)
        self.sampler = Sampler(model, methods, compilation, config.generation.attention)
        generation = config.generation
        self.guided = generation.guidance > 1 and "guidance" in model.family.offers
        check_reading(generation, model.family)
        self.reader = Reader(model.family, Reading.of(generation))
        width, height = generation.pixels
        model.family.latent_shape(width, height)  # refuses a size that cannot be made before any work
        model.family.check_steps(model.pipe.scheduler, generation.steps, width, height, "generation.steps")
        _set_tiling(model, bool(generation.vae_tiling))
        if generation.negative_prompt and "guidance" not in model.family.offers:
            raise ConfigError(
                f"generation.negative_prompt: {model.family.name} takes none: {model.family.lacks['guidance']}"
            )

    @classmethod
    def load(cls, config: Config, recipe: CompiledRecipe | None, device: str) -> "Engine":
        """Load the model and put *recipe* to work in it; ``None`` is the model as it is."""
        check_kernels_here(config, device)
        model = load_model(config.model, torch.device(device))
        install_attention(config.generation.attention, model)
        methods: list[Method] = []
        if recipe is not None:
            recipe.apply(model)
            methods = active_methods(config, model)
        quantize_denoiser(model.family.denoiser, config.generation.quantize)
        return cls(config, model, methods)

    def rehearse(self) -> None:
        """Take the first two steps of a small batch that names a concept of each method.

        Raises ``ConfigError`` for a method that could do nothing on this model, at this size.
        """
        pairs = self._concerned()
        if not pairs:
            return
        prompts = self._encode(pairs, 1).batch(pairs, self.model.device)
        generation = self.config.generation
        self.sampler.rehearse(prompts, *generation.pixels, generation.steps, generation.guidance)

    def warm_up(self, sizes: Sequence[tuple[int, int]] | None = None, seconds: float = math.inf) -> None:
        """Have everything compiled that batches of these *sizes* come to, width and height in pixels (None: the
        config's), whether they name a concept or none. After so many *seconds* no further size is begun: what is not
        compiled by then is when it is met.

        Raises ``ConfigError`` as ``Compilation.run`` does.
        """
        if self.sampler.compilation is None:
            return
        generation, count = self.config.generation, self.config.generation.batch_size
        until = time.monotonic() + seconds
        for size in [generation.pixels] if sizes is None else sizes:
            if time.monotonic() > until:
                return
            for pairs in ([], self._concerned()):
                named = pairs[:count]
                prompts = self._encode(named, 1).batch(named + [PADDING] * (count - len(named)), self.model.device)
                self.sampler.warm_up(prompts, *size, generation.steps, generation.guidance)

    def tell_of_compiling(self, tell: Callable[[bool], object]) -> None:
        """From now on *tell* when it begins to compile, or to load what others have compiled (True), and when it ends
        (False)."""
        if self.sampler.compilation is not None:
            self.sampler.compilation.busy = tell

    @property
    def compiling_seconds(self) -> float:
        """How long it has been compiling, or loading what others have compiled, until now."""
        return 0.0 if self.sampler.compilation is None else self.sampler.compilation.seconds

    def _concerned(self) -> list[PromptPair]:
        """Return prompts that name a concept of each method."""
        concepts = [min(method.concepts, key=lambda concept: concept.everywhere) for method in self.methods]
        return [(f"a {name}", "") for name in dict.fromkeys(concept.name for concept in concepts)]

    def generate(
        self, samples: Sequence[Sample], seeds: Sequence[int] | None = None, excluded: frozenset[str] = frozenset()
    ) -> Iterator[Batch]:
        """Yield the pictures of *samples* batch by batch, in the order of ``batches``: size by size, of each those that
        ask for few chunks of text first.

        ``seeds`` replaces the samples' own. The keys in ``excluded`` are not generated: padding fills their slots, so
        that their neighbours come out as ever.
        """
        used = {s.key: seed for s, seed in zip(samples, seeds or [s.seed for s in samples], strict=True)}
        asked = {sample.key: self.chunks_of(sample) for sample in samples}
        pairs: dict[int, list[PromptPair]] = defaultdict(list)
        for sample in samples:
            pairs[asked[sample.key]].append(_pair(sample, excluded))
        texts = {chunks: self._encode(some, chunks) for chunks, some in pairs.items()}
        generation = self.config.generation
        ahead: deque[_Launched] = deque()
        for batch in batches(samples, generation.batch_size, lambda sample: asked[sample.key]):
            padding = generation.batch_size - len(batch)
            prompts = texts[asked[batch[0].key]].batch(
                [_pair(sample, excluded) for sample in batch] + [PADDING] * padding, self.model.device
            )
            seeds_used = [used[sample.key] for sample in batch] + [0] * padding
            ahead.append(self._launch(batch, prompts, seeds_used, excluded))
            # A GPU is given the next batch before this one's pictures are waited for, so that it never idles.
            if len(ahead) > (1 if self.model.device.type == "cuda" else 0):
                yield ahead.popleft().wait()
        while ahead:
            yield ahead.popleft().wait()

    def chunks_of(self, sample: Sample) -> int:
        """Return in how many chunks a sample's texts are encoded; an excluded one keeps its place."""
        texts = (sample.prompt, sample.negative_prompt) if self.guided else (sample.prompt,)
        return max(map(self.reader.chunks_of, texts))

    def _encode(self, pairs: Sequence[PromptPair], chunks: int) -> Texts:
        reading = self.reader.filling(chunks).reading
        return encode_texts(self.model.family, pairs, self.methods, self.guided, reading)

    def _extent(self, sample: Sample, excluded: frozenset[str]) -> Extent | None:
        return None if sample.key in excluded else self.reader.extent(sample.prompt)

    def _launch(
        self, batch: tuple[Sample, ...], prompts: Prompts, seeds: Sequence[int], excluded: frozenset[str]
    ) -> "_Launched":
        generation, clock, compiling = self.config.generation, Clock(self.model.device), self.compiling_seconds
        pixels, gates = self.sampler.sample(
            prompts, seeds, batch[0].width, batch[0].height, generation.steps, generation.guidance
        )
        names = list(gates)
        images, finite, blank = finish(pixels)
        scores = (to_device(gates[name], pixels.device).float() for name in names)
        rows = torch.stack([finite.float(), blank.float(), *scores])
        extents = [self._extent(sample, excluded) for sample in batch]
        compiling = self.compiling_seconds - compiling
        launched = _Launched(batch, to_host(images), to_host(rows), names, extents, excluded, clock, compiling)
        clock.stop()
        return launched


@dataclass(frozen=True)
class _Launched:
    """A batch on its way: its tensors are valid only once the clock has been read."""

    samples: tuple[Sample, ...]
    images: Tensor  # uint8 (B, H, W, 3)
    rows: Tensor  # float32 (2 + gates, B): finite, blank, gates
    names: list[str]
    extents: list[Extent | None]
    excluded: frozenset[str]
    clock: Clock
    compiling: float  # seconds, which are no work on these pictures

    def wait(self) -> Batch:
        seconds = self.clock.seconds() - self.compiling
        count = len(self.samples)
        finite, blank, *gates = self.rows[:, :count].numpy().copy()
        return Batch(
            samples=self.samples,
            images=self.images[:count].numpy().copy(),
            faults=[self._fault(i, finite, blank) for i in range(count)],
            gates=dict(zip(self.names, gates, strict=True)),
            extents=self.extents,
            device_seconds=seconds,
        )

    def _fault(self, i: int, finite: np.ndarray, blank: np.ndarray) -> str | None:
        if self.samples[i].key in self.excluded:
            return EXCLUDED
        return "nan" if not finite[i] else "blank" if blank[i] else None


def _set_tiling(model: Model, on: bool) -> None:
    vae = model.pipe.vae
    if hasattr(vae, "use_tiling"):
        vae.use_tiling = on
    elif on:
        raise ConfigError(f"generation.vae_tiling: {type(vae).__name__} cannot decode in tiles; expected false")


def _pair(sample: Sample, excluded: frozenset[str]) -> PromptPair:
    return PADDING if sample.key in excluded else (sample.prompt, sample.negative_prompt)
