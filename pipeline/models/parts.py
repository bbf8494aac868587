"""The parts of a pipeline: networks loaded whole or not at all, and parts that belong together.

The libraries fill what a file lacks at random, drop what it has too much, and say so in a log at most.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from pipeline.errors import ConfigError

LIBRARIES = {
    "diffusers": (diffusers, diffusers.ModelMixin),
    "transformers": (transformers, transformers.PreTrainedModel),
}


def load_networks(
    where: str, folder: Path, index: dict[str, Any], dtype: torch.dtype, variant: str | None, left_out: Collection[str]
) -> dict[str, torch.nn.Module]:
    """Load the networks of the diffusers *folder* that its *index* names, but those *left_out*, by name.

    Parts that are of neither library, or have no folder, are left to diffusers. Raises ``ConfigError`` from *where*
    for a network whose file has other tensors than its config asks for.
    """
    networks = {}
    for part, source in index.items():
        if part in left_out or not (isinstance(source, list) and len(source) == 2) or not (folder / part).is_dir():
            continue
        library, base = LIBRARIES.get(source[0], (None, None))
        network_class = getattr(library, str(source[1]), None)
        if isinstance(network_class, type) and base is not None and issubclass(network_class, base):
            networks[part] = _load_network(f"{where}: {part}", network_class, folder / part, dtype, variant)
    return networks


def _load_network(where: str, network_class: Any, folder: Path, dtype: torch.dtype, variant: str | None) -> Any:
    # Some parts of a model have no file of the variant; theirs is the plain one, as in diffusers.
    has_variant = variant is not None and any(f".{variant}" in path.name for path in folder.iterdir())
    options: dict[str, Any] = {"variant": variant} if has_variant else {}
    if issubclass(network_class, diffusers.ModelMixin):
        options["torch_dtype"] = dtype
    else:  # tensors of another shape are listed in info then, where the error does not say which
        options |= {"dtype": dtype, "ignore_mismatched_sizes": True}
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


def _kind(key: str) -> str:
    return re.sub(r"\d+", "0", key)


def _some(keys: Collection[str]) -> str:
    return f"{len(keys)} tensor{'s' * (len(keys) > 1)}, such as {min(keys)},"
