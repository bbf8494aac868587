"""From a YAML file to a checked ``Config``: overrides, interpolations, erasure lists, then all that can be refused.

Every refusal is a ``ConfigError`` of one line: ``FILE: key.path: what is wrong; what was expected``.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.interpolation import Interpolated, resolve
from pipeline.config.overrides import apply_overrides, overrider
from pipeline.config.places import (
    FolderOf,
    content,
    place_audit,
    place_file,
    place_model,
    place_recipe,
    place_references,
)
from pipeline.config.problem import Problem
from pipeline.config.schema import VOCABULARIES, Config, DType, ErasureList
from pipeline.config.sections.audit import CaptionPolicy, Policy
from pipeline.config.sections.generation import AUTO, Compile
from pipeline.config.shape import build
from pipeline.config.tree import read_tree
from pipeline.config.validate import validate_static
from pipeline.errors import ConfigError
from pipeline.paths import read_path
from pipeline.registry import is_class_name


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override (``key=value``), type and check the config file *path*.

    Erasure lists are merged behind the file's own concepts. What the config reads comes back with whole paths
    (``places``); ``output.path`` stays relative to the working directory. Raises ``ConfigError``.
    """
    file = Path(path)
    tree = read_tree(file)
    applied = apply_overrides(tree, overrides, Config)
    origins: list[tuple[str, int]] = []
    interpolated: dict[str, Interpolated] = {}

    def folder_of(key: str) -> Path:
        return file.parent.absolute() if overrider(key, applied) is None else Path.cwd()

    try:
        data, interpolated = resolve(Config, tree)
        config = build(Config, data)
        origins = _merge_lists(config, file, folder_of, interpolated)
        config.interpolations = {key: found.text for key, found in interpolated.items()}
        if "dtype" not in data["model"]:
            config.model.dtype = DType.auto
        if "size" not in data.get("generation", {}):
            config.generation.size = AUTO
        if "compile" not in data.get("generation", {}):
            config.generation.compile = Compile.auto
        if not config.generation.vae_tiling:
            config.generation.vae_tiling = None  # false is what is done where a file says nothing: the same corpus
        if "policy" not in data.get("audit", {}) and not config.audit.detectors:
            config.audit.policy = Policy.keep  # the default needs a detector; without one, nothing is judged
        if "captions" not in data.get("audit", {}) and not config.audit.detectors:
            config.audit.captions = CaptionPolicy.drop  # nobody sees whether the anchor is there
        validate_static(config)
        if config.prompts.source is not None and not is_class_name(config.prompts.source):
            config.prompts.source = read_path(config.prompts.source, folder_of("prompts.source"))
        if config.words.vocabulary not in VOCABULARIES:
            config.words.vocabulary = read_path(config.words.vocabulary, folder_of("words.vocabulary"))
        config.written = place_model(config.model, folder_of) | place_recipe(config.erasure.recipe, folder_of)
        config.written |= place_audit(config.audit, folder_of)
        _place_contents(config, file, folder_of, origins)
        if config.erasure.concepts and "recipe" not in data["erasure"]:
            raise Problem("erasure.recipe", _no_recipe(config))
    except Problem as problem:
        message = _located(problem, str(file), applied, origins)
        raise ConfigError(_without_secrets(message, interpolated)) from None
    return config


def _place_contents(config: Config, file: Path, folder_of: FolderOf, origins: Sequence[tuple[str, int]]) -> None:
    """Find the files that are in the identity by what is in them."""
    lists = [None if origin == str(file) else Path(origin).parent.absolute() for origin, _ in origins]
    found = place_references(config.erasure.concepts, folder_of, lists, file.parent.absolute())
    config.written |= found
    for i, concept in enumerate(config.erasure.concepts):
        for j, path in enumerate(concept.references):
            config.contents[f"erasure.concepts[{i}].references[{j}]"] = content(path)
    for i, detector in enumerate(config.audit.detectors):
        if "endpoint" in detector.options:  # where a judge is asked says nothing of what it is
            config.contents[f"audit.detectors[{i}].options.endpoint"] = "anywhere"
        if detector.calibration is not None:
            key = f"audit.detectors[{i}].calibration"
            config.written[key] = detector.calibration
            hint = f"; `lacuna calibrate CONFIG PICTURES {key}=null` makes one"
            detector.calibration = place_file(key, detector.calibration, folder_of(key), hint)
            config.contents[key] = content(detector.calibration)


def _no_recipe(config: Config) -> str:
    names = [concept.name for concept in config.erasure.concepts]
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"is absent, so that nothing would be erased of what is listed ({listed}); expected steps, such as "
        "[{method: uce, options: {lamb: 1000}}, {method: cease}], or recipe: [] where nothing is to be erased"
    )


def _merge_lists(
    config: Config, file: Path, folder_of: FolderOf, interpolated: dict[str, Interpolated]
) -> list[tuple[str, int]]:
    """Append the concepts of ``erasure.lists`` to the config's own; return the file and index each came from."""
    merged = config.erasure.concepts
    origins = [(str(file), i) for i in range(len(merged))]
    for i, name in enumerate(config.erasure.lists):
        folder = folder_of(f"erasure.lists[{i}]")
        path = Path(read_path(name, folder))
        if not path.exists():
            raise Problem(f"erasure.lists[{i}]", f"{path}: no such erasure list (a path relative to {folder})")
        try:
            data, found = resolve(ErasureList, read_tree(path, "erasure list"))
            listed = build(ErasureList, data)
        except Problem as problem:
            raise Problem(problem.key, problem.message, file=str(path)) from None
        if not listed.concepts:
            raise Problem("concepts", "lists no concept; expected `concepts:` with a name each", file=str(path))
        for key, value in found.items():
            index, _, rest = key.removeprefix("concepts[").partition("]")
            if key.startswith("concepts["):
                interpolated[f"erasure.concepts[{len(merged) + int(index)}]{rest}"] = value
        origins += [(str(path), j) for j in range(len(listed.concepts))]
        merged += listed.concepts
    return origins


def _located(problem: Problem, file: str, applied: dict[str, str], origins: list[tuple[str, int]]) -> str:
    """Put the file, the erasure list or the override before a problem, whichever its key came from."""
    key = problem.key
    if problem.file is not None:
        return f"{problem.file}: {problem}"
    override = overrider(key, applied)
    if override is not None:
        return f"override {override!r}: {problem}"
    head, bracket, rest = key.partition("erasure.concepts[")
    if not head and bracket and origins:
        index, _, tail = rest.partition("]")
        origin, local = origins[int(index)]
        if origin != file:
            return f"{origin}: concepts[{local}]{tail}: {problem.message}"
    return f"{file}: {problem}"


def _without_secrets(message: str, interpolated: dict[str, Interpolated]) -> str:
    """Write ``${oc.env:...}`` in place of what it stands for, wherever a message quotes it."""
    for found in interpolated.values():
        if isinstance(found.value, str) and found.value:
            message = message.replace(found.value, found.text)
    return message
