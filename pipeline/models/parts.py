"""The parts of a pipeline: networks loaded whole or not at all, and parts that belong together.

The libraries fill what a file lacks at random, drop what it has too much, and say so in a log at most.
"""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from pipeline.errors import ConfigError
from pipeline.models.family import Family
from pipeline.models.files import check_weights, loaded_files, variant_of
from pipeline.models.find import Found

LIBRARIES = {
    "diffusers": (diffusers, diffusers.ModelMixin),
    "transformers": (transformers, transformers.PreTrainedModel),
}

# SD3 is published without T5 too; the others are no part of what Lacuna runs.
_DISPENSABLE = ("safety_checker", "feature_extractor", "image_encoder", "text_encoder_3", "tokenizer_3")


def load_networks(
    where: str, folder: Path, index: dict[str, Any], dtype: torch.dtype, variant: str | None, left_out: Collection[str]
) -> dict[str, torch.nn.Module]:
    """Load the networks of the diffusers *folder* that its *index* names, but those *left_out*, by name.

    Parts that are of neither library, or have no folder, are left to diffusers. Raises ``ConfigError`` from *where*
    for a network whose file has other tensors than its config asks for.
    """
    return {
        part: load_network(f"{where}: {part}", network_class, folder / part, dtype, variant)
        for part, network_class in _classes(index, left_out)
        if (folder / part).is_dir()
    }


def empty_networks(
    where: str, found: Found, dtype: torch.dtype, left_out: Collection[str]
) -> dict[str, torch.nn.Module]:
    """Return the networks of a model but those *left_out*, by name, of the shapes that their configs tell and without
    values: none of their weights is read or fetched.

    Raises ``ConfigError`` from *where* for a network that has no config.json, or of which none can be made.
    """
    networks = {}
    for part, network_class in _classes(found.index, left_out):
        config = found.part_config(part)
        if not config:
            raise ConfigError(f"{where} is not whole: its model_index.json names {part}, which has no config.json")
        try:
            with torch.device("meta"):
                if issubclass(network_class, diffusers.ModelMixin):
                    network = network_class.from_config(config)
                else:
                    network = network_class(network_class.config_class.from_dict(config))
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{where}: no {part} can be made of its config.json: {reason[:300]}") from error
        networks[part] = network.to(dtype)
    return networks


def _classes(index: dict[str, Any], left_out: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the names and classes of the networks of an *index* that are of one of the two libraries."""
    for part, source in index.items():
        if part in left_out or not (isinstance(source, list) and len(source) == 2):
            continue
        library, base = LIBRARIES.get(source[0], (None, None))
        network_class = getattr(library, str(source[1]), None)
        if isinstance(network_class, type) and base is not None and issubclass(network_class, base):
            yield part, network_class


def load_network(where: str, network_class: Any, folder: Path, dtype: torch.dtype, variant: str | None) -> Any:
    """Load a network of one of the two libraries from its *folder*; ``ConfigError`` from *where* if it is not whole."""
    # Some parts of a model have no file of the variant; theirs is the plain one, as in diffusers.
    has_variant = variant is not None and any(variant_of(path) == variant for path in loaded_files(folder, variant))
    options: dict[str, Any] = {"variant": variant} if has_variant else {}
    if issubclass(network_class, diffusers.ModelMixin):
        options["torch_dtype"] = dtype
    else:  # tensors of another shape are listed in info then, where the error does not say which
        options |= {"dtype": dtype, "ignore_mismatched_sizes": True}
    _check_stored(where, folder)
    check_weights(where, folder, variant)
    try:
        network, info = network_class.from_pretrained(
            str(folder), use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where} cannot be loaded from safetensors: {reason[:300]}") from error
    for key, in_file, wanted in sorted(info["mismatched_keys"]):
        raise ConfigError(
            f"{where}: its file belongs to another config.json: {key} is {tuple(in_file)}, not {tuple(wanted)}"
        )
    if info["missing_keys"]:
        raise ConfigError(f"{where}: its file lacks {_some(info['missing_keys'])} that its config.json asks for")
    # Further layers of a kind that the network has; others, such as CLIP's half for pictures, are no part of it.
    kinds = {_kind(key) for key in network.state_dict()}
    further = [key for key in info["unexpected_keys"] if _kind(key) in kinds]
    if further:
        raise ConfigError(f"{where}: its config.json has no place for {_some(further)} in its file")
    return network


def _check_stored(where: str, folder: Path) -> None:
    """Refuse weights that are stored as something else than floating-point numbers in safetensors."""
    try:
        quantised = json.loads((folder / "config.json").read_text()).get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return  # the library says what is wrong with it
    if quantised:
        how = quantised.get("quant_method", "unnamed") if isinstance(quantised, dict) else "unnamed"
        raise ConfigError(
            f"{where}: its weights are quantised ({how}, by its config.json), which Lacuna can neither edit nor run; "
            "give the model in float32, bfloat16 or float16"
        )


def check_parts(where: str, pipe: Any, family: type[Family]) -> None:
    """Raise ``ConfigError`` from *where* for a pipeline of which parts are absent or do not belong together."""
    for name, part in pipe.components.items():
        if part is None and name not in _DISPENSABLE:
            raise ConfigError(f"{where} has no {name}, which {family.name} needs")
    for name, part in pipe.components.items():
        if part is not None and name.startswith("text_encoder"):
            _check_tokenizer(where, name.replace("text_encoder", "tokenizer"), pipe, part.config)
    for setting in family.vae_settings:
        value = pipe.vae.config.get(setting)
        if not isinstance(value, int | float):
            raise ConfigError(f"{where}: its vae/config.json has {setting}: {json.dumps(value)}; expected a number")
    for what, (there, wanted) in family.joints(pipe).items():
        if there != wanted:
            reason = f"its {what} is {there}; its other parts need {wanted}"
            raise ConfigError(f"{where} is no {family.name} that can be used: {reason}")


def _check_tokenizer(where: str, name: str, pipe: Any, encoder: Any) -> None:
    """Without its files a tokenizer is made all the same, of its few special tokens and with no end to a text."""
    tokenizer = getattr(pipe, name)
    if tokenizer is None:
        raise ConfigError(f"{where} has no {name}, which its text encoder needs")
    if len(tokenizer) < encoder.vocab_size / 2:
        known = f"{len(tokenizer)} of the {encoder.vocab_size} tokens"
        raise ConfigError(f"{where}: its {name} knows {known} that its text encoder does; is a file of it missing?")
    places = getattr(encoder, "max_position_embeddings", None)  # T5 has no end
    if places is not None and tokenizer.model_max_length > places:
        raise ConfigError(
            f"{where}: its {name} has a model_max_length of {tokenizer.model_max_length}, but its text encoder reads "
            f"{places} tokens at most"
        )


def _kind(key: str) -> str:
    return re.sub(r"\d+", "0", key)


def _some(keys: Collection[str]) -> str:
    return f"{len(keys)} tensor{'s' * (len(keys) > 1)}, such as {min(keys)},"
