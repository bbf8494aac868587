"""The folder of an evaluation: pictures with what the judge saw in them, batch by batch, and what they were made with.

A batch is one file, written whole or not at all, so an evaluation that is killed goes on with the next batch. A folder
begun with other settings is refused with the difference; tasks and recipes may be added to it, not changed in it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.identity import identity_difference
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Seen:
    """A batch: ``images`` uint8 (N, 64, 64, 3); ``seen`` bool (N, classes), what the judge sees; ``places`` bool
    (N, objects, 8, 8), in which cells of 8x8 pixels it sees each object."""

    images: np.ndarray
    seen: np.ndarray
    places: np.ndarray


class Folder:
    """Where an evaluation lies on disk."""

    def __init__(self, root: Path):
        self.root = root

    def begin(self, settings: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        """Note what the pictures are made with: *settings* of all, and *parts* (tasks, recipes) by name.

        Raises ``ConfigError`` where the folder was begun with another setting, or with another part of that name.
        """
        path = self.root / "settings.json"
        noted: dict[str, Any] = {"settings": dict(settings), "parts": {}}
        if path.exists():
            noted = json.loads(path.read_text())
            given = json.loads(json.dumps(settings))
            differing = identity_difference(noted["settings"], given)
            for name, value in json.loads(json.dumps(parts)).items():
                if name in noted["parts"]:
                    differing += identity_difference({name: noted["parts"][name]}, {name: value})
            if differing:
                raise ConfigError(
                    f"{self.root}: was begun with other settings ({'; '.join(differing)}); "
                    "choose another folder with -o, or give what changed another name"
                )
        noted["parts"] |= parts
        write_whole(path, json.dumps(noted, indent=1).encode())

    def path(self, task: str, recipe: str, batch: str) -> Path:
        return self.root / "pictures" / task / recipe / f"{batch}.npz"

    def has(self, task: str, recipe: str, batch: str) -> bool:
        return self.path(task, recipe, batch).exists()

    def write(self, task: str, recipe: str, batch: str, found: Seen) -> None:
        path = self.path(task, recipe, batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, images=found.images, seen=found.seen, places=np.packbits(found.places, axis=-1))
        os.replace(partial, path)

    def read(self, task: str, recipe: str, batch: str) -> Seen:
        with np.load(self.path(task, recipe, batch)) as file:
            return Seen(file["images"], file["seen"], np.unpackbits(file["places"], axis=-1).astype(bool))

    def read_json(self, name: str) -> Any:
        """Return what was written under *name*; None where nothing was."""
        path = self.root / name
        return json.loads(path.read_text()) if path.exists() else None

    def write_json(self, name: str, value: Any) -> None:
        write_whole(self.root / name, (json.dumps(value, indent=1) + "\n").encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write *data* so that the file is never seen in part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def joined(parts: Sequence[Seen]) -> Seen:
    """All batches, one after another."""
    return Seen(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "seen", "places")))
