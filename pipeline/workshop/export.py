"""`lacuna export`: the model with a recipe's edits folded in, as a diffusers folder that any tool loads.

A folder holds weights, so only steps that edit weights are in it. What acts while sampling (conditions and steers)
cannot be, and a recipe with such steps is refused unless the user says that its edits alone are wanted.

Where the config's corpus has been begun, its pinned tensors are exported, so that the folder is the model which made
the corpus, bit for bit. Knows nothing of sampling.
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline import __version__
from pipeline.config import identity
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config
from pipeline.corpus import read_run_record
from pipeline.erasure.recipe import CompiledRecipe
from pipeline.erasure.steps import read_steps
from pipeline.errors import ConfigError
from pipeline.models.load import Model
from pipeline.paths import folder_on_disk
from pipeline.session import Session

CARD = "README.md"


def export(config: Config, folder: str | Path, *, edits_only: bool = False) -> str:
    """Write the erased model to *folder*; return a line that says what is in it.

    Raises ``ConfigError`` for a folder that is not empty, a recipe that edits no weights, and one with steps that act
    while sampling, unless ``edits_only``.
    """
    target = folder_on_disk(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: is there already and not empty; expected a new or an empty folder")
    session = Session(config)
    model = session.model
    left_out = _left_out(config, model, edits_only)
    pinned = _pinned(session)
    if pinned is None:
        recipe = session.compile()
    else:
        recipe = pinned
        recipe.apply(model)
    # Whole or not at all: a folder that is half a model loads as a whole one in some tools.
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        for part in model.pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # not among its stubs
        model.pipe.save_pretrained(temporary, safe_serialization=True)
        _load_as_diffusers_does(temporary)
        (temporary / CARD).write_text(_card(config, model, recipe, left_out, pinned is not None))
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    edits = ", ".join(step["label"] for step in recipe.record["steps"] if "file" in step)
    without = f"; not in it, because they act while sampling: {', '.join(left_out)}" if left_out else ""
    origin = f", as pinned in {config.output.path}" if pinned is not None else ""
    return f"{target}: {type(model.pipe).__name__} with {edits} folded in{origin}{without}"


def _load_as_diffusers_does(folder: Path) -> None:
    """Let transformers' parts come up in float32 where a tool names no dtype, as diffusers' parts do: by their config
    they would in the dtype of their file, and a text encoder in bfloat16 does not go with a denoiser in float32."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        if "dtype" in config:
            path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")


def _left_out(config: Config, model: Model, edits_only: bool) -> list[str]:
    """Return the labels of the steps that a folder cannot hold; ``ConfigError`` where they may not be left out."""
    steps = read_steps(config.erasure.recipe, concepts_of(config.erasure), model.family)
    if not any(step.edits for step in steps):
        raise ConfigError("erasure.recipe: no step of it edits weights, so the exported model would be the original")
    left_out = [step.label for step in steps if step.method.has("condition") or step.method.has("steer")]
    if left_out and not edits_only:
        raise ConfigError(
            f"erasure.recipe: {', '.join(left_out)} can act while sampling alone, and no folder of weights holds that; "
            "give --edits-only to export without"
        )
    return left_out


def _pinned(session: Session) -> CompiledRecipe | None:
    """Return the recipe of the corpus that this config made or is making, or ``None``."""
    record = read_run_record(session.output.store)
    if record is None or record.model_revision != session.model.revision:
        return None
    ours = identity(session.config, "").fields
    keys = {key for key in ours.keys() | record.identity.keys() if key.startswith(("model.", "erasure."))}
    if any(ours.get(key) != record.identity.get(key) for key in keys):
        return None
    return session.pinned_recipe(record)


def _card(config: Config, model: Model, recipe: CompiledRecipe, left_out: list[str], pinned: bool) -> str:
    header = {"library_name": "diffusers", "tags": ["text-to-image", "concept-erasure"]}
    concepts = {concept.name: asdict(concept) for concept in concepts_of(config.erasure)}
    edits = [step for step in recipe.record["steps"] if "file" in step]
    names = list(dict.fromkeys(name for step in edits for name in step["concepts"]))
    origin = "taken from a corpus, where they are pinned" if pinned else "solved for this folder"
    # Parts that diffusers expects and the model is saved without (SD3 without T5) must be said to be absent.
    optional = model.pipe._optional_components
    absent = [part for part, value in model.pipe.components.items() if value is None and part not in optional]
    options = ", ".join([f"torch_dtype=torch.{config.model.dtype}", *(f"{part}=None" for part in absent)])
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).rstrip(),
        "---",
        f"# {config.model.path}, without {', '.join(names)}",
        "",
        f"`{config.model.path}` at revision `{model.revision}` in {config.model.dtype}, with concepts erased from its "
        f"weights by Lacuna {__version__}. The edited weights were {origin}.",
        "",
        "| concept | other words | in its place | preserved |",
        "|---|---|---|---|",
        *(_concept_row(concepts[name]) for name in names),
        "",
        "Edits, in order, each with the sha256 of its tensors and what the self-check measured, in units of the "
        "distance from the concept to its anchor:",
        "",
        "| step | options | sha256 | self-check |",
        "|---|---|---|---|",
        *(_step_row(step) for step in edits),
        "",
    ]
    if left_out:
        lines += [
            f"**Not in this folder**: {', '.join(left_out)}. These steps of the recipe act while sampling; without "
            "them this model erases less than the recipe does.",
            "",
        ]
    lines += [
        "No edit erases whatever the words: published attacks defeat all of them to some degree. The licence of the "
        "original model applies.",
        "",
        "```python",
        "import torch",
        f"from diffusers import {type(model.pipe).__name__}",
        "",
        f'pipe = {type(model.pipe).__name__}.from_pretrained("FOLDER", {options})',
        "```",
        "",
    ]
    return "\n".join(lines)


def _concept_row(concept: dict[str, Any]) -> str:
    return (
        f"| {concept['name']} | {', '.join(concept['aliases']) or '-'} | {concept['anchor'] or 'nothing'} "
        f"| {', '.join(concept['preserve']) or '-'} |"
    )


def _step_row(step: dict[str, Any]) -> str:
    options = ", ".join(f"{key} {value}" for key, value in step["options"].items() if not isinstance(value, list))
    checks = "; ".join(
        f"{name}: {', '.join(f'{key} {value}' for key, value in figures.items())}"
        for name, figures in step["selfcheck"].items()
    )
    return f"| {step['label']} | {options} | `{step['sha256']}` | {checks} |"
