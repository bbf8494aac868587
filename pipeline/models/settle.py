"""``auto`` made definite, before the identity of a corpus is computed: the model's dtype, the size of pictures, the
kernel of attention, and how much is compiled.

A corpus that was begun has them in its ``run.yaml``; else the dtype is what the device does fast, the size is what the
model was trained for, the kernel is torch's choice, and compiled is what repays it. Reads configs of the model's parts
and no weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.config.schema import ConceptConfig, Config, DType
from pipeline.config.sections.generation import AUTO, Attention, Compile
from pipeline.errors import ConfigError
from pipeline.models.compiling import Work, hardware, settle_compile, with_compile
from pipeline.models.dtype import kind_here, settle_dtype, with_dtype
from pipeline.models.find import find_model, is_here

NOTHING = Work()
UNTOLD = {"FluxPipeline": 128}  # sides of latents that diffusers' pipelines know and no config of their parts tells


def as_begun(config: Config, identity: Mapping[str, Any], words: Mapping[str, Any] | None = None) -> Config:
    """Return *config* with ``auto`` replaced by what a corpus of these fields was begun with, and its proved words.

    *words* are those that it had from a table (``RunRecord.words``), so that what was set by hand is known from them:
    a config that takes that away, or adds to it, is of another corpus. Older corpora do not tell (None).
    """
    concepts = [
        _as_begun(concept, f"erasure.concepts[{i}]", identity, words)
        for i, concept in enumerate(config.erasure.concepts)
    ]
    config = replace(config, erasure=replace(config.erasure, concepts=concepts))
    if config.model.dtype is DType.auto:
        config = with_dtype(config, DType(identity["model.dtype"]))
    if config.generation.compile is Compile.auto:
        config = with_compile(config, Compile(identity.get("generation.compile", Compile.none)))
    config = settle_attention(config, Attention(identity.get("generation.attention", Attention.native)))
    if not config.generation.vae_tiling:  # older corpora whose files said false have that in their identity
        said = False if identity.get("generation.vae_tiling") is False else None
        config = replace(config, generation=replace(config.generation, vae_tiling=said))
    return _with_size(config, identity["generation.size"]) if config.generation.size == AUTO else config


def _as_begun(
    concept: ConceptConfig, key: str, identity: Mapping[str, Any], words: Mapping[str, Any] | None
) -> ConceptConfig:
    def begun(part: str) -> list[str]:
        given: list[str] = getattr(concept, part)
        if words is None:
            return _with_proved(given, identity.get(f"{key}.{part}"))
        found = words.get(part, {}).get(concept.name, [])
        return [*given, *(word for word in found if word not in given)]

    return replace(concept, proven=begun("proven"), implied=begun("implied"))


def _with_proved(given: list[str], begun: Any) -> list[str]:
    """Return *begun*, the words of a corpus, where they are those *given* by hand and then what pictures proved."""
    return list(begun) if isinstance(begun, list) and begun[: len(given)] == given else given


def settle(
    config: Config,
    device: str | None = None,
    *,
    work: Work = NOTHING,
    say: Callable[[str], object] = lambda line: None,
) -> Config:
    """Return *config* without ``auto``: ``settle_attention``, ``settle_dtype``, ``settle_size`` and
    ``settle_compile``, of which it says the line. *device* ("cuda" or "cpu") is by default the one found here."""
    config = settle_dtype(settle_size(settle_attention(config)), device)
    if config.generation.compile is not Compile.auto:
        return config
    config, line = settle_compile(config, hardware(device or kind_here(config.cluster.device)), work)
    say(line)
    return config


def settle_here(config: Config, *, work: Work = NOTHING, say: Callable[[str], object] = lambda line: None) -> Config:
    """Settle as ``settle`` what can be told without network: the dtype by this machine, the size of a model that is
    here, and how much is compiled of such a one; where nothing can be compiled the model is not asked."""
    if is_here(config.model):
        return settle(config, work=work, say=say)
    config = settle_dtype(settle_attention(config))
    if config.generation.compile is not Compile.auto:
        return config
    device = hardware(kind_here(config.cluster.device))
    if device.compiles:
        return config
    config, line = settle_compile(config, device, work)
    say(line)
    return config


def settle_attention(config: Config, kernel: Attention = Attention.native) -> Config:
    """Return *config* with a ``generation.attention`` of ``auto`` replaced by *kernel*."""
    if config.generation.attention is not Attention.auto:
        return config
    return replace(config, generation=replace(config.generation, attention=kernel))


def stand_in(config: Config) -> Config:
    """Return *config* with some size where none is settled, and nothing compiled: keys, seeds and shards do not depend
    on it."""
    config = _with_size(config, [64, 64]) if config.generation.size == AUTO else config
    return with_compile(config, Compile.none) if config.generation.compile is Compile.auto else config


def settle_size(config: Config) -> Config:
    """Return *config* with a size of ``auto`` replaced by the model's own; of a model on the hub two small files are
    fetched. Raises ``ConfigError`` as ``find_model`` does, and where the model tells no size."""
    if config.generation.size != AUTO:
        return config
    found = find_model(config.model)
    denoiser = "transformer" if "transformer" in found.index else "unet"
    size = own_size(found.class_name, found.part_config(denoiser), found.part_config("vae"))
    if size is None:
        raise ConfigError(
            f"generation.size: auto is the model's own, and {config.model.path} tells none in the configs of "
            f"{denoiser} and vae; expected [width, height] in pixels"
        )
    return _with_size(config, list(size))


def own_size(class_name: str, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height, in pixels, of the pictures that a model was trained on, by its pipeline's class and the
    configs of two of its parts; None where they tell none."""
    sample = denoiser.get("sample_size") or UNTOLD.get(class_name)  # of the latents: a side, or height and width
    channels = vae.get("block_out_channels")
    if not sample or not channels:
        return None
    height, width = (sample, sample) if isinstance(sample, int) else sample
    factor = 2 ** (len(channels) - 1)
    return width * factor, height * factor


def _with_size(config: Config, size: list[int]) -> Config:
    return replace(config, generation=replace(config.generation, size=size))
