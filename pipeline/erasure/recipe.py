"""A recipe made concrete: edits solved once, checked, and pinned as bytes that every worker loads.

``compile_recipe`` runs where a run is prepared; ``CompiledRecipe.from_files`` where pictures are made. No worker solves
anything, so all have the same weights whatever their libraries.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm

from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config
from pipeline.erasure.method import Method
from pipeline.erasure.selfcheck import MANY, SelfCheck, checked
from pipeline.erasure.steps import Step, read_steps
from pipeline.erasure.tensors import apply_tensors, copied
from pipeline.erasure.trained import Trained, read_trained
from pipeline.errors import ConfigError, CorpusError, SelfCheckError
from pipeline.models.family import Family
from pipeline.models.load import Model


@dataclass(frozen=True)
class CompiledRecipe:
    """``tensors`` are safetensors files by name; ``record`` is what ``run.yaml`` keeps of the recipe (JSON-able).

    ``record["steps"]`` has for each step its label, method, concepts and options, and for an edit also ``file``,
    ``sha256`` and ``selfcheck`` (figures of ``selfcheck.Figures``, by concept).
    """

    tensors: dict[str, bytes]
    record: dict[str, Any]

    @classmethod
    def from_files(cls, record: dict[str, Any], read: Callable[[str], bytes]) -> "CompiledRecipe":
        """Read the pinned files by name. Raises ``CorpusError`` where one's sha256 is not that of *record*."""
        tensors = {}
        for step in record["steps"]:
            if "file" not in step:
                continue
            data = read(step["file"])
            if hashlib.sha256(data).hexdigest() != step["sha256"]:
                raise CorpusError(f"{step['file']}: its sha256 is not the one pinned in run.yaml; the file was changed")
            tensors[step["file"]] = data
        return cls(tensors, record)

    def apply(self, model: Model, originals: dict[str, Tensor] | None = None) -> None:
        """Write the pinned edits into *model*, in the recipe's order; *originals* as in ``apply_tensors``."""
        for step in self.record["steps"]:
            if "file" in step:
                apply_tensors(model, load(self.tensors[step["file"]]), originals)


def compile_recipe(
    config: Config, model: Model, trained: Trained = read_trained, originals: dict[str, Tensor] | None = None
) -> CompiledRecipe:
    """Solve and check the edits of *config* on *model*, which is left with them applied.

    ``trained`` gives the result of a step that has to be trained; by default what `lacuna finetune` left of it.
    *originals* is as in ``apply_tensors``.
    Raises ``ConfigError`` for a recipe that does not fit the model, ``SelfCheckError`` for an edit that is refused.
    """
    steps = recipe_steps(config, model.family)
    tensors: dict[str, bytes] = {}
    records: list[dict[str, Any]] = []
    for i, step in enumerate(steps):
        record: dict[str, Any] = {
            "label": step.label,
            "method": step.name,
            "concepts": [concept.name for concept in step.concepts],
            "options": asdict(step.options),
        }
        if step.edits:
            where = f"erasure.recipe[{i}]: {step.label}"
            check = SelfCheck(model, step.concepts)
            edited = trained(config, model, steps, i) if step.method.has("train") else step.edit(model)
            if not edited:
                raise ConfigError(f"{where} edits no weight of this model; leave it out, or name another method")
            # Saved as the model holds them: what is checked here is then, bit for bit, what every worker applies.
            edited = {name: tensor.to("cpu", model.dtype).contiguous() for name, tensor in edited.items()}
            for name, tensor in edited.items():
                if not torch.isfinite(tensor).all():
                    raise SelfCheckError(f"{where} gave weights that are not finite ({name})")
            before = copied(model, edited)
            apply_tensors(model, edited, originals)
            try:
                record["selfcheck"] = check.judge(where, step.method)
            except SelfCheckError as error:
                apply_tensors(model, before)
                raise SelfCheckError(f"{error}{_to_blame(model, step)}") from error
            data = save(edited)
            sha256 = hashlib.sha256(data).hexdigest()
            # Its digest is in its name, so that two starts at once, whose bytes may differ by their devices, cannot
            # write over what the other has pinned.
            name = f"{i:02d}-{step.label}-{sha256[:16]}.safetensors"
            tensors[name] = data
            record |= {"file": name, "sha256": sha256}
        records.append(record)
    return CompiledRecipe(tensors, {"version": 1, "steps": records})


def _to_blame(model: Model, step: Step) -> str:
    """Return, for the message of a refused edit, which of its concepts are refused alone too; they are tried one by one
    where that is quick, and *model* is left as it is."""
    tried = checked(step.concepts) if step.method.separable and len(step.concepts) > 1 else ()
    refused = []
    for concept in tqdm(tried, desc="which concept?", unit="concept", disable=len(tried) < MANY):
        check = SelfCheck(model, [concept])
        edited = replace(step, concepts=(concept,)).edit(model)
        before = copied(model, edited)
        apply_tensors(model, edited)
        try:
            check.judge(step.label, step.method)
        except SelfCheckError:
            refused.append(repr(concept.name))
        finally:
            apply_tensors(model, before)
    if not refused or len(refused) == len(tried):
        return ""
    them, are = ("it", "is") if len(refused) == 1 else ("them", "are")
    return f"; {', '.join(refused)} {are} refused alone too, and the others are not: leave {them} out"


def active_methods(config: Config, model: Model) -> list[Method]:
    """Build the methods that act while sampling, in the recipe's order; *model* has its edits already."""
    steps = recipe_steps(config, model.family)
    return [step.build(model) for step in steps if step.method.has("condition") or step.method.has("steer")]


def recipe_steps(config: Config, family: Family | type[Family]) -> list[Step]:
    """Read the recipe of *config*; check each step against the family and how the pictures are to be sampled.

    Needs no model: commands ask it through ``check_recipe`` before they load one.
    """
    steps = read_steps(config.erasure.recipe, concepts_of(config.erasure), family)
    steps = [step.with_false_alarms(config.words.false_alarms) for step in steps]
    for i, step in enumerate(steps):
        try:
            step.check_sampling(config.generation)
        except ConfigError as error:
            raise ConfigError(f"erasure.recipe[{i}].method: {step.name!r} cannot work here: {error}") from error
    return steps
