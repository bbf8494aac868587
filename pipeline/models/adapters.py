"""The user's own LoRAs, folded into the weights before any erasure looks at them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.config.schema import AdapterConfig
from pipeline.errors import ConfigError


def fuse_adapters(pipe: Any, adapters: Sequence[AdapterConfig]) -> list[str]:
    """Fuse each adapter into *pipe*, in order; return "sha256:…" of each file.

    Raises ``ConfigError`` for a file that is missing, is no safetensors, or does not fit the model.
    """
    digests = []
    for i, adapter in enumerate(adapters):
        where = f"model.adapters[{i}].path: {adapter.path}"
        path = _file(where, adapter)
        try:
            state = load_file(path)
            pipe.load_lora_weights(state, adapter_name=f"adapter{i}")
            pipe.fuse_lora(lora_scale=adapter.weight)
            pipe.unload_lora_weights()
        except (SafetensorError, ValueError, RuntimeError, LookupError) as error:
            raise ConfigError(
                f"{where} does not fit this model as a LoRA: {' '.join(str(error).split())[:200]}"
            ) from error
        with path.open("rb") as file:
            digests.append(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
    return digests


def _file(where: str, adapter: AdapterConfig) -> Path:
    """Return the adapter's one safetensors file, from disk or from the hub."""
    path = Path(adapter.path).expanduser()
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ConfigError(f"{where} is not a .safetensors file")
        return path
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise ConfigError(f"{where} holds {len(files)} .safetensors files; name the one to use")
        return files[0]
    try:
        info = HfApi().model_info(adapter.path, revision=adapter.revision)
        names = [f.rfilename for f in info.siblings or [] if f.rfilename.endswith(".safetensors")]
        if len(names) != 1:
            raise ConfigError(
                f"{where} holds {len(names)} .safetensors files; download the one to use and give its path"
            )
        return Path(hf_hub_download(adapter.path, names[0], revision=info.sha))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(f"{where} is neither a file here nor readable on the hub") from error
