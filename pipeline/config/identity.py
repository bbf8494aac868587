"""Which corpus is this? The settings that change its bytes, flat, with a digest over them.

A resume under another identity would mix two corpora in one folder, so it is refused with the lines of
``identity_difference``. Versions of packages are no part of it (the environment is recorded per commit).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

from pipeline.config.problem import under
from pipeline.config.schema import Config
from pipeline.config.sections.declare import default, settings
from pipeline.config.sections.generation import AUTO

# What the code does with a config. Raise it by hand, with the reason here, whenever the same config gives other bytes
# than before: a golden test of the corpus fails until that is done (of what it draws: nothing is erased in it).
# What depends on a corpus's format alone (see corpus.layout) is no reason: a run goes on in the format of its begin.
# 2: CEASE's text gate lets a listed neighbour take away only what it is nearer by, so gates, and with them pictures,
#    came out otherwise; its look and gather may overlap.
# 3: with CEASE a word that implies several concepts of the list brings all of them into play, not the nearest alone.
# 4: with CEASE the place of a concept that is only implied is wider; of listed words that overlap only the longest is
#    meant; SDXL is looked at above 1 MP too; cease_joint switches in pictures of one step. Pairs of UCE, RECE and
#    SPEED come from templates only that name nothing that is erased.
# 5: LoRAs whose layers have several alphas, or of which some have none, are as strong in each layer as that layer says.
#    Captions have a subject in every case, where the detector sees the anchor that stands there by default, and only
#    once.
#    Captions hold no control character, NaN is no negative prompt, and columns pass as Arrow's own types.
#    TCD's steps put no noise back unless eta says so. Where a UNet's block hears text twice, both layers are edited.
#    A model's folder is known by the files that are loaded.
# 6: What names a concept is told in one normal form of text (cat_ears, 1cat, full-width letters, AK‑47), of overlapping
#    words the longest, everywhere; phrases may be excepted. Captions drop the syntax of weights and choices.
#    SAFREE reads no padding where the text encoder of Stable Diffusion was trained not to.
#    What a text encoder does not read of a long prompt opens no gate and is in no caption. cease_joint takes the
#    direction of what is only implied; of what is named too cease takes it from the pooled vector as well.
#    The gate of CEASE and cease_joint is calibrated to the model's text encoder, and knows the dictionary's kinds; what
#    is taken from embeddings is measured by their spread.
# 7: The gate asks words of every script, in the normal form, and takes unknown ones for listed ones misspelt; of senses
#    of a concept's name the most frequent tells what is a kind of it. Captions leave out what weighs 0, and tidy each
#    part before a BREAK.
#    CEASE and cease_joint gather the place of a concept, and switch, by sums in another order; a prompt's nearness as a
#    whole is told of what the steps before cease in the recipe have left of it.
#    Pictures of a shard share a batch with those of their size wherever they stand, not with their neighbours alone: of
#    shards of one size the batches are as ever.
# 8: The gate asks no function words. Captions keep a thing where what weighs 0 is only said of it, or joined to it.
#    CEASE gathers the place of a concept in the first four tenths of the steps (before: six).
# 9: In half precision (and compiled) cease_joint leaves samples that no concept concerns as they are without it, to the
#    bit. Exceptions are found written together, too; in a prompt as a whole what is ignored is excepted.
SEMANTICS = 9


@dataclass(frozen=True)
class Identity:
    """``fields``: dotted key -> JSON value, of every setting that changes bytes, with "source" and "semantics".

    ``digest`` is the sha256, in hex, of their canonical JSON. A text that was written as ``${...}`` enters the digest
    as it is and ``fields`` only as a hash of itself, because fields are saved and it may be a secret.
    """

    fields: dict[str, Any]
    digest: str


def is_settled(config: Config) -> bool:
    """Is nothing left that a device or a model has to tell?"""
    generation = config.generation
    return AUTO not in (config.model.dtype, generation.size, generation.compile, generation.attention)


def identity(config: Config, source_fingerprint: str) -> Identity:
    """Name the corpus that *config* makes of the prompts with this fingerprint.

    Raises ``ValueError`` unless it is settled: what "auto" stands for changes bytes.
    """
    if not is_settled(config):
        raise ValueError(
            "model.dtype, generation.size, compile or attention is auto; settle it first (pipeline.models.settle)"
        )
    values = {
        key: value
        for key, value, is_identity in leaves(config, written=config.written | config.contents)
        if is_identity
    }
    values |= {"source": source_fingerprint, "semantics": SEMANTICS}
    return Identity({key: _veiled(key, value, config) for key, value in values.items()}, _sha256(values))


def identity_difference(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return a line ``key: old -> new`` for each field in which *b* differs from *a*; absent ones say so."""
    return [
        f"{key}: {_text(a, key)} -> {_text(b, key)}"
        for key in sorted(a.keys() | b.keys())
        if key not in a or key not in b or a[key] != b[key]
    ]


def leaves(
    owner: Any, path: str = "", written: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[str, Any, bool]]:
    """Yield dotted key, JSON value and "is identity" of every setting; containers of settings are no leaves. Under the
    keys of *written* stands what it says."""
    for f in settings(type(owner)):
        value, key = getattr(owner, f.name), under(path, f.name)
        if is_dataclass(value):
            yield from leaves(value, key, written)
        elif isinstance(value, list) and any(map(is_dataclass, value)):
            for i, item in enumerate(value):
                yield from leaves(item, f"{key}[{i}]", written)
        else:
            silent = f.metadata["silent"] and value == default(f)
            yield key, plain(value, key, written), f.metadata["identity"] and not silent


def plain(value: Any, path: str = "", written: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Return *value*, found under *path*, with enums as their texts, so that JSON and YAML can write it."""
    if path in written:
        return written[path]
    if isinstance(value, dict):
        return {key: plain(item, under(path, key), written) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, f"{path}[{i}]", written) for i, item in enumerate(value)]
    return value.value if isinstance(value, Enum) else value


def _sha256(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _veiled(key: str, value: Any, config: Config) -> Any:
    hidden = any(name == key or name.startswith((f"{key}.", f"{key}[")) for name in config.interpolations)
    return f"sha256:{_sha256(value)[:16]}" if hidden and not isinstance(value, (int, float)) else value


def _text(fields: dict[str, Any], key: str) -> str:
    return json.dumps(fields[key], ensure_ascii=False) if key in fields else "(absent)"
