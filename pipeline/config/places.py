"""Where what a config reads lies. One rule: paths in a file are relative to the file's folder, those on the command
line to where you stand. (What is written, ``output.path`` and ``erasure.finetuned``, is relative to where you stand.)

A config is loaded with whole paths in it; ``Config.written`` keeps what was written, which is what the identity knows.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.problem import Problem
from pipeline.config.schema import ConceptConfig, Config, ModelConfig, StepConfig
from pipeline.config.sections.audit import AuditConfig, DetectorConfig
from pipeline.paths import is_hub_id, locate, read_path
from pipeline.registry import MODELS

PATH_OPTIONS = {"weights": "path"}  # of methods: the option that names a file
# Of detectors: the options that name a file or a folder, or a hub id, and what such a folder holds.
_CHECKPOINT = {"model": "config.json"}
DETECTOR_PATHS = {
    "classifier": _CHECKPOINT,
    "clip": _CHECKPOINT,
    "open_vocabulary": _CHECKPOINT,
    "safety_checker": _CHECKPOINT,
    "style": {**_CHECKPOINT, "projection": "*.safetensors"},
    "vlm": _CHECKPOINT,
}
MEASURE_PATHS = {  # of quality's measures
    "aesthetic": {**_CHECKPOINT, "head": "*.safetensors"},
    "clip": _CHECKPOINT,
    "embedding": _CHECKPOINT,
}

FolderOf = Callable[[str], Path]  # of a key: the folder that its relative paths are relative to


def place_model(model: ModelConfig, folder_of: FolderOf) -> dict[str, str]:
    """Give *model* whole paths; return what was written, by key."""
    written = {}
    if model.path not in MODELS and model.path.strip():
        written["model.path"] = model.path
        model.path = _found("model.path", model.path, folder_of, "model_index.json")
    for i, adapter in enumerate(model.adapters):
        if adapter.path.strip():
            key = f"model.adapters[{i}].path"
            written[key] = adapter.path
            adapter.path = _found(key, adapter.path, folder_of, "*.safetensors")
    return written


def place_recipe(recipe: list[StepConfig], folder_of: FolderOf, where: str = "erasure.recipe") -> dict[str, str]:
    """Give the steps of *recipe* whole paths; return what was written, by key."""
    written = {}
    for i, step in enumerate(recipe):
        option = PATH_OPTIONS.get(step.method, "")
        value = step.options.get(option)
        if isinstance(value, str) and value.strip():
            key = f"{where}[{i}].options.{option}"
            written[key] = value
            step.options[option] = _found(key, value, folder_of, "*.safetensors")
    return written


def place_audit(audit: AuditConfig, folder_of: FolderOf) -> dict[str, str]:
    """Give the checkpoints that detectors and measures look with whole paths; return what was written, by key."""
    return _place(_audit_paths(audit), folder_of)


def place_detectors(detectors: Sequence[DetectorConfig], folder_of: FolderOf, where: str) -> dict[str, str]:
    """Give the checkpoints of *detectors*, which stand under the key *where*, whole paths; likewise."""
    return _place(_detector_paths(detectors, where), folder_of)


_Path = tuple[str, dict[str, Any], str, str]  # its key, the options that have it and under what, what a folder holds


def _place(paths: Iterable[_Path], folder_of: FolderOf) -> dict[str, str]:
    written = {}
    for key, options, option, holds in paths:
        written[key] = options[option]
        options[option] = _found(key, written[key], folder_of, holds)
    return written


def _audit_paths(audit: AuditConfig) -> Iterator[_Path]:
    yield from _detector_paths(audit.detectors, "audit.detectors")
    for i, one in enumerate(audit.quality):
        yield from _paths(f"audit.quality[{i}]", one.options, MEASURE_PATHS.get(one.measure))


def _detector_paths(detectors: Sequence[DetectorConfig], where: str) -> Iterator[_Path]:
    for i, one in enumerate(detectors):
        yield from _paths(f"{where}[{i}]", one.options, DETECTOR_PATHS.get(one.detector))


def _paths(key: str, options: dict[str, Any], paths: Mapping[str, str] | None) -> Iterator[_Path]:
    for option, holds in (paths or {}).items():
        value = options.get(option)
        if isinstance(value, str) and value.strip():
            yield f"{key}.options.{option}", options, option, holds


def place_references(
    concepts: Sequence[ConceptConfig], folder_of: FolderOf, lists: Sequence[Path | None], here: Path
) -> dict[str, str]:
    """Give the reference pictures of *concepts* whole paths; return what was written, by key.

    *lists* names the folder of the list that each came from, None for the config's own. What a list said is told as
    seen from *here*, the config's folder, where its concepts stand once they are merged.
    """
    written = {}
    for i, (concept, folder) in enumerate(zip(concepts, lists, strict=True)):
        for j, path in enumerate(concept.references):
            key = f"erasure.concepts[{i}].references[{j}]"
            whole = place_file(key, path, folder or folder_of(key))
            written[key] = path if folder is None else os.path.relpath(whole, here)
            concept.references[j] = whole
    return written


def place_file(key: str, path: str, folder: Path, hint: str = "") -> str:
    """Return the whole path of *path*, relative to *folder*; ``Problem``, with *hint*, where no file is there."""
    whole = Path(read_path(path, folder)) if path.strip() else folder
    if not whole.is_file():
        where = "" if path == str(whole) else f" (a path relative to {folder})"
        raise Problem(key, f"{whole}: no such file{where}{hint}")
    return str(whole)


def content(path: str) -> str:
    """Return "sha256:…" over what is in the file *path*."""
    with Path(path).open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def whole_paths(config: Config) -> dict[str, str]:
    """Return where each path of *config* that is on this machine lies, by key; without those that may hold secrets."""
    found = dict(_read(config))
    if not locate(config.output.path).scheme:
        found["output.path"] = str(locate(config.output.path))
    return {key: path for key, path in found.items() if key not in config.interpolations}


def _read(config: Config) -> Iterator[tuple[str, str]]:
    values: Mapping[str, Any] = {"model.path": config.model.path, "prompts.source": config.prompts.source}
    adapters = {f"model.adapters[{i}].path": adapter.path for i, adapter in enumerate(config.model.adapters)}
    steps = {
        f"erasure.recipe[{i}].options.{PATH_OPTIONS[step.method]}": step.options.get(PATH_OPTIONS[step.method])
        for i, step in enumerate(config.erasure.recipe)
        if step.method in PATH_OPTIONS
    }
    references = {
        f"erasure.concepts[{i}].references[{j}]": path
        for i, concept in enumerate(config.erasure.concepts)
        for j, path in enumerate(concept.references)
    }
    calibrations = {
        f"audit.detectors[{i}].calibration": detector.calibration for i, detector in enumerate(config.audit.detectors)
    }
    checkpoints = {key: options[option] for key, options, option, _ in _audit_paths(config.audit)}
    for key, value in {**values, **adapters, **steps, **references, **calibrations, **checkpoints}.items():
        if isinstance(value, str) and Path(value).is_absolute():
            yield key, value


def _found(key: str, written: str, folder_of: FolderOf, holds: str) -> str:
    """Return the whole path of *written*; a hub id stays one, unless that file, or a folder that *holds* what is
    looked for, lies there."""
    path, here = Path(read_path(written, folder_of(key))), Path(read_path(written, Path.cwd()))
    if is_hub_id(written):
        if _holds(path, holds):
            return str(path)
        if not _holds(here, holds):
            return written
    elif path.exists() or not here.exists():
        return str(path)
    raise Problem(
        key,
        f"{path} is not there; {here} is, but what a config names is relative to the config's folder: write "
        f"{here}, or give {key}={written} on the command line",
    )


def _holds(path: Path, what: str) -> bool:
    return path.is_file() or any(path.glob(what))
