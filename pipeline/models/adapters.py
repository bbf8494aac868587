"""LoRAs, folded into the weights: the user's own, before any erasure looks at them, and those that erase.

diffusers reads them, so its own layout, peft's and kohya's all do.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.config.schema import AdapterConfig
from pipeline.errors import ConfigError
from pipeline.models.files import check_fetched
from pipeline.models.hub import single_safetensors
from pipeline.paths import is_hub_id

# How a LoRA's two matrices of a layer are called: by peft, by diffusers of old, by kohya.
_MATRICES = ("lora_A", "lora_B", "lora.down", "lora.up", "lora_down", "lora_up")

_UPS = (".lora_B.", ".lora.up.", ".lora_up.")


def fuse_adapters(pipe: Any, adapters: Sequence[AdapterConfig]) -> list[str]:
    """Fuse each adapter into *pipe*, in order; return "sha256:…" of each file.

    Raises ``ConfigError`` for a file that is missing, is no safetensors, or does not fit the model.
    """
    digests = []
    for i, adapter in enumerate(adapters):
        where = f"model.adapters[{i}].path: {adapter.path}"
        path = safetensors_file(where, adapter.path, adapter.revision)
        lora_weights(pipe, path, adapter.weight, where, keep=True)
        with path.open("rb") as file:
            digests.append(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
    return digests


def is_lora(state: Mapping[str, Tensor]) -> bool:
    return any("lora" in key for key in state)


def lora_weights(pipe: Any, path: Path, scale: float, where: str, keep: bool = False) -> dict[str, Tensor]:
    """Return the weights that the LoRA in the file *path* changes, by name from the pipeline on, with it folded in.

    *pipe* itself is as before, unless ``keep``. Raises ``ConfigError`` for a file that is no safetensors, holds no
    LoRA's matrices or values that are not finite, is a DoRA of kohya's, or has matrices without a place in *pipe*.
    """
    try:
        state = load_file(path)
        _check(state)
        evened = _with_one_alpha(state)
        if evened is None:  # the file, not its tensors: peft keeps alpha, and with it the strength, in its metadata
            pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="lacuna")
        else:
            pipe.load_lora_weights(evened, adapter_name="lacuna")
        layers = dict(_lora_layers(pipe))
        matrices = sum(map(_is_matrix, state))
        if 2 * len(layers) < matrices:
            raise ValueError(f"only {2 * len(layers)} of its {matrices} matrices have a place")
        before = {name: layer.get_base_layer().weight.detach().clone() for name, layer in layers.items()}
        # Every part that has layers: of itself diffusers fuses FLUX's transformer alone.
        pipe.fuse_lora(components=sorted({name.partition(".")[0] for name in layers}), lora_scale=scale)
        pipe.unload_lora_weights()
    except (ValueError, RuntimeError, LookupError, TypeError, SafetensorError) as error:
        pipe.unload_lora_weights()
        raise _unfit(where, error) from error
    folded = {}
    for name, weight in before.items():
        part, _, rest = name.partition(".")
        parameter = getattr(pipe, part).get_parameter(f"{rest}.weight")
        folded[f"{name}.weight"] = parameter.detach().clone()
        if not keep:
            with torch.no_grad():
                parameter.copy_(weight)
    for name, tensor in folded.items():
        if not tensor.isfinite().all():
            reason = (
                f"at the strength {scale} it leaves the range of {str(tensor.dtype).removeprefix('torch.')} in {name}"
            )
            raise _unfit(where, ValueError(reason))
    return folded


def _is_matrix(key: str) -> bool:
    return key.rpartition(".")[0].endswith(_MATRICES) or key.endswith(_MATRICES)


def _check(state: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` for tensors of which diffusers would make something else than a LoRA, or nothing."""
    if any("dora_scale" in key for key in state):
        raise ValueError("it is a DoRA of kohya's, whose dora_scale diffusers drops; convert it to peft's layout")
    if not any(map(_is_matrix, state)):
        raise ValueError("it holds no LoRA matrices")
    bad = next((key for key, tensor in state.items() if not tensor.isfinite().all()), None)
    if bad is not None:
        raise ValueError(f"{bad} has values that are not finite")


def _with_one_alpha(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return a LoRA of the same strengths in which every layer has the same alpha; ``None`` where that is so already.

    A layer's weight gains alpha / rank * up @ down, or up @ down where no alpha is given (kohya's convention, and
    peft's). Given several, diffusers applies the commonest one to all layers.
    """
    ups = {key.partition(up)[0]: key for up in _UPS for key in state if up in key}
    alphas = {stem: state[f"{stem}.alpha"].item() for stem in ups if f"{stem}.alpha" in state}
    if not alphas or (len(alphas) == len(ups) and len(set(alphas.values())) == 1):
        return None
    evened = dict(state)
    for stem, key in ups.items():
        evened[key] = state[key].float() * alphas.get(stem, state[key].shape[1])
        evened[f"{stem}.alpha"] = torch.tensor(1.0)
    return evened


def _lora_layers(pipe: Any) -> Iterator[tuple[str, Any]]:
    """Yield the layers of *pipe* that a LoRA was put round, by name from the pipeline on."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for part, component in pipe.components.items():
        if isinstance(component, torch.nn.Module):
            for name, module in component.named_modules():
                if isinstance(module, BaseTunerLayer):
                    yield f"{part}.{name}", module


def _unfit(where: str, error: Exception) -> ConfigError:
    return ConfigError(f"{where} does not fit this model as a LoRA: {' '.join(str(error).split())[:200]}")


def safetensors_file(where: str, name: str, revision: str | None) -> Path:
    """Return the one safetensors file that *name* is or holds, on disk or on the hub; ``ConfigError`` from *where*."""
    if is_hub_id(name):
        return single_safetensors(where, name, revision)
    path = Path(name).expanduser()
    if path.exists() and revision is not None:
        raise ConfigError(f"{where} is here, and only what is on the hub has revisions; leave revision out")
    if path.is_file():
        if path.suffix != ".safetensors":
            reason = ".pt, .ckpt and .bin are not read, because they can run code"
            raise ConfigError(f"{where} is not a .safetensors file; {reason}")
        check_fetched(where, [path])
        return path
    if path.is_dir():
        files = sorted(file for file in path.glob("*.safetensors") if not file.name.startswith("."))
        if len(files) != 1:
            raise ConfigError(f"{where} holds {len(files)} .safetensors files; name the one to use")
        check_fetched(where, files)
        return files[0]
    return single_safetensors(where, name, revision)
