"""From a config's ``model`` to where it lies and which family drives it, by its model_index.json alone.

No weights are read, and torch is imported only by whoever asks for the family.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError

from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError, nearest
from pipeline.models.files import check_fetched, loaded_files, read_settings
from pipeline.models.hub import asking_the_hub
from pipeline.paths import is_hub_id
from pipeline.registry import FAMILIES, MODELS, built_in_model, load_class

if TYPE_CHECKING:
    from pipeline.models.family import Family


@dataclass(frozen=True)
class Found:
    """A model of a supported class. ``location`` is a folder, or the hub id whose ``commit`` is meant.

    ``index`` is what its model_index.json holds: the parts by name, and its class.
    """

    location: str
    commit: str | None  # None: a folder
    index: dict[str, Any]
    family_name: str | None = None  # in place of the one that is registered for its class

    @property
    def class_name(self) -> str:
        name: str = self.index["_class_name"]
        return name

    def family(self) -> "type[Family]":
        from pipeline.models.family import Family

        name = self.family_name or self.class_name
        found: type[Family] = load_class("family", name, FAMILIES, Family, "model.family")
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise ConfigError(f"model.family: {name} does not define {', '.join(missing)}")
        return found

    def part_config(self, part: str) -> dict[str, Any]:
        """Return what the config.json of a *part* holds, which is fetched of a model on the hub; empty where it has
        none."""
        name, where = f"{part}/config.json", f"model.path: {self.location}"
        folder = Path(self.location)
        if self.commit is not None:
            with asking_the_hub(where, self.location, self.commit):
                try:
                    folder = Path(hf_hub_download(self.location, name, revision=self.commit)).parents[1]
                except RemoteEntryNotFoundError:
                    return {}
        return read_settings(where, folder, name) if (folder / name).is_file() else {}

    def revision(self, variant: str | None) -> str:
        """Return the commit, or "sha256:…" over what is loaded of a folder, which reads it all (1.8 GB/s)."""
        return self.commit or _folder_digest(Path(self.location), self.parts(), variant)

    def parts(self) -> list[str]:
        """Return the names of the parts that are loaded: not those that the index says are absent, or the family needs
        not."""
        left_out = self.family().load_options
        return [
            part
            for part, source in self.index.items()
            if isinstance(source, list) and all(source) and part not in left_out
        ]


def is_here(config: ModelConfig) -> bool:
    """Is the model built in or a folder of this machine, so that finding it takes no network?"""
    return config.path in MODELS or (not is_hub_id(config.path) and Path(config.path).expanduser().exists())


def find_model(config: ModelConfig) -> Found:
    """Find the model; of one on the hub, fetch its model_index.json at the config's revision.

    Raises ``ConfigError`` for a model that is not there, is no diffusers folder, or is of a class that no family
    supports.
    """
    found = _locate(config)
    class_name = found.index.get("_class_name", "none")
    if not isinstance(class_name, str):  # diffusers writes [file, class] where the class is in the model's own folder
        raise ConfigError(
            f"model.path: {config.path}: its _class_name is {json.dumps(class_name)}, a pipeline with code of its own, "
            f"which is not run; expected one of {', '.join(sorted(FAMILIES))}"
        )
    if config.family is not None:
        return replace(found, family_name=config.family)
    if class_name not in FAMILIES:
        raise ConfigError(
            f"model.path: {config.path} is a {class_name}, which is not supported{nearest(class_name, FAMILIES)}; "
            f"expected one of {', '.join(sorted(FAMILIES))}, or a family of your own in model.family"
        )
    return found


def _locate(config: ModelConfig) -> Found:
    if (built_in := built_in_model(config.path)) is not None:
        if not (built_in / "model_index.json").exists():
            raise ConfigError(
                f"model.path: the {config.path} has no weights here yet; `make {config.path}` trains them"
            )
        return _local(built_in, config.path)
    folder = Path(config.path).expanduser()
    if not is_hub_id(config.path) and folder.exists():
        if config.revision is not None:
            raise ConfigError(f"model.revision: {config.path} is a local folder, which has no revisions")
        return _local(folder, config.path)
    if not is_hub_id(config.path):
        raise ConfigError(f"model.path: {config.path} is neither a folder here nor a hub id (owner/name)")
    return _hub(config)


def _local(folder: Path, name: str) -> Found:
    index_path = folder / "model_index.json"
    if not index_path.is_file():
        hint = ""
        if folder.is_file() or list(folder.glob("*.safetensors")) or list(folder.glob("*.ckpt")):
            hint = "; convert a single-file checkpoint with diffusers' from_single_file and save_pretrained"
        raise ConfigError(f"model.path: {name} is not a diffusers folder (it has no model_index.json){hint}")
    check_fetched(f"model.path: {name}", [index_path])
    index = read_settings(f"model.path: {name}", folder, "model_index.json")
    return Found(str(folder), None, index)


def _folder_digest(folder: Path, parts: Sequence[str], variant: str | None) -> str:
    files = [folder / "model_index.json"]
    files += [path for part in parts if (folder / part).is_dir() for path in loaded_files(folder / part, variant)]
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _hub(config: ModelConfig) -> Found:
    where = f"model.path: {config.path}"
    with asking_the_hub(where, config.path, config.revision):
        try:
            path = Path(hf_hub_download(config.path, "model_index.json", revision=config.revision))
        except RemoteEntryNotFoundError as error:
            raise ConfigError(f"{where} is not a diffusers model (it has no model_index.json)") from error
    # The cache keeps each file under snapshots/<commit>/, so a branch or tag resolves to bytes even when offline.
    return Found(config.path, path.parent.name, read_settings(where, path.parent, "model_index.json"))
