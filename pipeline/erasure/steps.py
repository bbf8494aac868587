"""The steps of a recipe, read from a config and checked against the methods' contracts and the model's family.

Knows no model: what can be told of a step before one is loaded is told here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.config.options import read_options
from pipeline.config.sections.generation import GenerationConfig
from pipeline.erasure.method import HOOKS, Method
from pipeline.errors import ConfigError, check_given, named_in_errors, nearest
from pipeline.models.family import Family
from pipeline.models.load import Model
from pipeline.registry import METHODS, load_class


@dataclass(frozen=True)
class Step:
    """One entry of a recipe, checked: its class, concepts and typed options. ``where`` is its key in the config and the
    name of its class: what that code raises is raised within ``named_in_errors`` of it."""

    where: str
    label: str
    name: str
    method: type[Method]
    concepts: tuple[Concept, ...]
    options: Any

    @property
    def edits(self) -> bool:
        """Whether the step changes weights, solved or trained."""
        return self.method.has("edit") or self.method.has("train")

    @property
    def edits_text(self) -> bool:
        """Whether it may change text encoders; ``ConfigError`` where a file that tells cannot be found."""
        with named_in_errors(self.where):
            return self.method.edits_text(self.options, self.label)

    def text_gate(self, family: Family) -> Any:
        """Return what scores the words of prompts (``Method.text_gate``)."""
        with named_in_errors(self.where):
            return self.method.text_gate(family, self.concepts, self.options)

    def with_false_alarms(self, share: float) -> "Step":
        """Return the step with *share* as its ``false_alarms``, where the method has that option and it is not set."""
        if getattr(self.options, "false_alarms", share) is not None:
            return self
        return replace(self, options=replace(self.options, false_alarms=share))

    def build(self, model: Model) -> Method:
        """Construct the method, which may raise whatever its code does, named."""
        with named_in_errors(self.where):
            method = self.method(model, self.concepts, self.options, label=self.label)
        method.where = self.where
        return method

    def edit(self, model: Model) -> dict[str, Tensor]:
        """Construct the method and have it edit (``Method.edit``)."""
        method = self.build(model)
        with named_in_errors(self.where):
            edited = method.edit()
            check_given("edit", edited, Mapping, "tensors by name")
        return edited

    def files(self) -> list[Path]:
        """Return the files that it reads (``Method.files``)."""
        with named_in_errors(self.where):
            return self.method.files(self.options, self.label)

    def check_sampling(self, generation: GenerationConfig) -> None:
        """Have it refuse how pictures are to be sampled (``Method.check_sampling``)."""
        with named_in_errors(self.where):
            self.method.check_sampling(self.options, generation)


def read_steps(recipe: Sequence[Any], concepts: Sequence[Concept], family: Family | type[Family]) -> list[Step]:
    """Check the steps (``StepConfig``) of a recipe against the methods' contracts and the model's family.

    Raises ``ConfigError`` for unknown methods, concepts and options, options of a wrong type, methods without a hook,
    and those that do not fit the architecture, with the reason.
    """
    steps: list[Step] = []
    by_name = {concept.name: concept for concept in concepts}
    for i, config in enumerate(recipe):
        where = f"erasure.recipe[{i}]"
        method: type[Method] = load_class("method", config.method, METHODS, Method, f"{where}.method")
        if not any(map(method.has, HOOKS)):
            near = next(filter(None, (nearest(name, HOOKS) for name in vars(method) if not name.startswith("_"))), "")
            raise ConfigError(
                f"{where}.method: {config.method!r} would do nothing: it defines none of {', '.join(HOOKS)}{near}"
            )
        for reason in refusals(method, family):
            raise ConfigError(
                f"{where}.method: {config.method!r} does not work on {family.name}: {reason}; "
                f"expected one of {', '.join(working(family))}"
            )
        if method.once and any(step.method is method for step in steps):
            raise ConfigError(
                f"{where}.method: {config.method!r} is in the recipe already; expected it once, with all its concepts: "
                f"{method.once}"
            )
        names = list(by_name) if config.concepts == "all" else list(config.concepts)
        for name in names:
            if name not in by_name:
                raise ConfigError(f"{where}.concepts: {name!r} is not in the erasure list{nearest(name, by_name)}")
        if not names:
            raise ConfigError(f"{where}.concepts: no concept to erase; list one under erasure.concepts")
        shown = f"{where}.method: {config.method}"
        with named_in_errors(shown):
            options = read_options(f"{where}.options", config.method, method.Options, config.options)
        base = config.method.rpartition(":")[2].lower()
        earlier = sum(step.label.split("-")[0] == base for step in steps)
        label = f"{base}-{earlier + 1}" if earlier else base
        steps.append(Step(shown, label, config.method, method, tuple(by_name[name] for name in names), options))
    return steps


def refusals(method: type[Method], family: Family | type[Family]) -> list[str]:
    """Return, for everything that *method* requires and *family* does not offer, the reason."""
    missing = sorted(method.requires - family.offers)
    return [family.lacks.get(need, f"{family.name} does not offer {need!r}") for need in missing]


def working(family: Family | type[Family]) -> list[str]:
    """Return the names of the registered methods that work on *family*."""
    return [name for name in METHODS if not refusals(load_class("method", name, METHODS, Method), family)]
