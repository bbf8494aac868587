"""The folder of an evaluation: pictures with what the judge saw in them, batch by batch, and what they were made with.

A batch is one file, written whole or not at all, so an evaluation that is killed goes on with the next batch. It says
which questions it answers, and does not count where others are asked now. A folder begun with other settings is refused
with the difference; tasks and recipes may be added to it, not changed in it.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from pipeline.config.identity import identity_difference
from pipeline.errors import ConfigError, CorpusError, StoreError
from pipeline.evaluation.world import CELL
from pipeline.files import write_whole


@dataclass(frozen=True)
class Seen:
    """A batch: ``images`` uint8 (N, H, W, 3); ``seen`` bool (N, classes), what the judge sees; ``places`` bool
    (N, objects, H / 8, W / 8), in which cells of 8x8 pixels it sees each object."""

    images: np.ndarray
    seen: np.ndarray
    places: np.ndarray

    def first(self, most: int) -> "Seen":
        """Return the first *most* of them."""
        return Seen(self.images[:most], self.seen[:most], self.places[:most])


@dataclass(frozen=True)
class Origin:
    """What a batch was drawn for and with: digests of its questions and of the code."""

    asked: str
    code: str


class Folder:
    """Where an evaluation lies on disk."""

    def __init__(self, root: Path):
        self.root = root

    def begin(self, settings: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        """Note what the pictures are made with: *settings* of all, and *parts* (tasks, recipes) by name.

        Raises ``ConfigError`` where the folder was begun with another setting, or with another part of that name;
        ``CorpusError`` where it holds something else, ``StoreError`` where it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.root}: is no folder to write to ({error.strerror}); choose another with -o"
            ) from error
        noted = self.read_json("settings.json", ("settings", "parts"))
        if noted is None:
            noted = {"settings": dict(settings), "parts": {}}
        else:
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
        self.write_json("settings.json", noted)

    def path(self, task: str, recipe: str, batch: str) -> Path:
        return self.root / "pictures" / task / recipe / f"{batch}.npz"

    def origin(self, task: str, recipe: str, batch: str) -> Origin | None:
        """Return what a batch was drawn for and with; None where there is none, or not a whole one."""
        try:
            with np.load(self.path(task, recipe, batch)) as file:
                return Origin(str(file["asked"]), str(file["code"]))
        except (FileNotFoundError, zipfile.BadZipFile, EOFError, KeyError, ValueError):
            return None

    def has(self, task: str, recipe: str, batch: str, asked: str) -> bool:
        """Tell whether a batch is there and answers the questions of digest *asked*."""
        origin = self.origin(task, recipe, batch)
        return origin is not None and origin.asked == asked

    def write(self, task: str, recipe: str, batch: str, found: Seen, origin: Origin) -> None:
        file, places = io.BytesIO(), np.packbits(found.places, axis=-1)
        np.savez_compressed(file, images=found.images, seen=found.seen, places=places, **asdict(origin))
        write_whole(self.path(task, recipe, batch), file.getvalue())

    def read(self, task: str, recipe: str, batch: str) -> Seen:
        path = self.path(task, recipe, batch)
        try:
            with np.load(path) as file:
                images = file["images"]
                places = np.unpackbits(file["places"], axis=-1, count=images.shape[2] // CELL)
                return Seen(images, file["seen"], places.astype(bool))
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
            raise CorpusError(f"{path}: is damaged; delete it, and it is drawn again") from error

    def read_json(self, name: str, keys: Sequence[str] = ()) -> Any:
        """Return what was written under *name*; None where nothing was. ``CorpusError`` where it lacks *keys*."""
        path = self.root / name
        if not path.exists():
            return None
        try:
            value = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise CorpusError(f"{path}: is damaged; delete it, or choose another folder with -o") from error
        if missing := [key for key in keys if key not in value]:
            raise CorpusError(
                f"{path}: has no {missing[0]!r}, so no evaluation wrote it; choose another folder with -o"
            )
        return value

    def record(self, task: str, recipe: str) -> Any:
        """Return what was kept of a recipe that was solved for a task; None where it was not."""
        return self.read_json(f"recipes/{task}/{recipe}/record.json", ("steps", "code"))

    def codes(self, task: str, recipe: str, batches: Iterable[str]) -> set[str]:
        """Return the digests of all code that solved a recipe for a task or drew of its *batches* what is there."""
        record = self.record(task, recipe)
        origins = (self.origin(task, recipe, batch) for batch in batches)
        return {origin.code for origin in origins if origin} | ({record["code"]} if record else set())

    def edited(self, task: str, recipe: str) -> set[str] | None:
        """Return the names of the weights that a recipe edits; None where it was not solved for the task."""
        record = self.record(task, recipe)
        if record is None:
            return None
        names: set[str] = set()
        for step in record["steps"]:
            if "file" in step:
                with safe_open(self.root / f"recipes/{task}/{recipe}" / step["file"], "pt") as file:
                    names |= set(file.keys())
        return names

    def write_json(self, name: str, value: Any) -> None:
        write_whole(self.root / name, (json.dumps(value, indent=1) + "\n").encode())


def joined(parts: Sequence[Seen]) -> Seen:
    """All batches, one after another."""
    return Seen(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "seen", "places")))
