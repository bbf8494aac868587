"""Which files of a model's folder are loaded, and whether they are there: of what kind, of what variant, and whole.

Pickled weights (.bin, .ckpt, .pt) are never read, since they can run code.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

_LOADED = (".json", ".txt", ".model", ".safetensors")  # settings, vocabularies of three kinds, weights
_VARIANT = re.compile(r"\.(?P<variant>[A-Za-z_]\w*)(?:-\d+-of-\d+)?\.(?:safetensors|bin)$")
_POINTER = b"version https://git-lfs.github.com/spec/"


def read_settings(where: str, folder: Path, name: str) -> dict[str, Any]:
    """Return what the JSON file *name* of a model's *folder* holds; ``ConfigError``, about *where*, if no object."""
    try:
        settings = json.loads((folder / name).read_text())
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: its {name} is no JSON object; is the copy whole?")
    return settings


def loaded_files(part: Path, variant: str | None) -> list[Path]:
    """Return the files of the folder *part* that loading it may read, in the order of their names.

    Of weights these are the *variant*'s, or the plain ones where the part has none of it, as in diffusers.
    """
    files = sorted(
        path for path in part.iterdir() if path.suffix in _LOADED and not path.name.startswith(".") and path.is_file()
    )
    weights = [path for path in files if path.suffix == ".safetensors"]
    used = variant if variant in map(variant_of, weights) else None
    return [path for path in files if path not in weights or variant_of(path) == used]


def variant_of(path: Path) -> str | None:
    """Return the variant that a file of weights is of ("fp16" of model.fp16.safetensors), if any."""
    match = _VARIANT.search(path.name)
    return match["variant"] if match else None


def check_weights(where: str, part: Path, variant: str | None) -> None:
    """Raise ``ConfigError`` from *where* for the folder of a network without safetensors that *variant* finds."""
    if any(path.suffix == ".safetensors" for path in loaded_files(part, variant)):
        return
    names = [path for path in sorted(part.iterdir()) if not path.name.startswith(".")]
    variants = sorted({variant_of(path) or "" for path in names if path.suffix == ".safetensors"})
    if variants:
        has = "no plain file" if variant is None else f"neither a plain file nor one of the variant {variant!r}"
        raise ConfigError(f"{where}: has {has}; give model.variant: {' or '.join(variants)}, which it has")
    pickled = [path.name for path in names if path.suffix in (".bin", ".ckpt", ".pt")]
    if pickled:
        raise ConfigError(
            f"{where}: has its weights in {pickled[0]} alone, which is not read, because it can run code; load the "
            "model with diffusers where you trust it, and save it with save_pretrained, which writes safetensors"
        )


def check_fetched(where: str, paths: Iterable[Path]) -> None:
    """Raise ``ConfigError`` from *where* for a file in whose place lies the pointer that git puts there without LFS."""
    for path in paths:
        with path.open("rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
        if pointer:
            raise ConfigError(
                f"{where}: {path.name} is a git-LFS pointer and not the file itself; fetch it with: "
                f"git -C {path.parent} lfs pull"
            )
