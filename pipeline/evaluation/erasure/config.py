"""The config of ``lacuna evaluate erasure``: what to erase, by which recipes, and how much to draw. Typed and checked.

It is read like a run's config: unknown keys and impossible values are refused in one line, with the nearest valid name.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.concepts import concepts_of
from pipeline.config.identity import plain
from pipeline.config.interpolation import resolve
from pipeline.config.overrides import apply_overrides, overrider
from pipeline.config.places import FolderOf, place_detectors, place_file, place_model, place_recipe
from pipeline.config.problem import Problem, show, under
from pipeline.config.schema import ConceptConfig, Config, Device, ErasureConfig, ModelConfig, StepConfig
from pipeline.config.sections.audit import CaptionPolicy, Policy
from pipeline.config.sections.generation import GenerationConfig
from pipeline.config.shape import build
from pipeline.config.tree import read_tree
from pipeline.config.validate import validate_static
from pipeline.errors import ConfigError, nearest
from pipeline.evaluation.listed import Listed, ListedConfig
from pipeline.evaluation.world import World, load_world
from pipeline.registry import WORLDS, check_name

LISTED = "listed"  # the world of ``EvaluationConfig.listed``
NONE = "none"  # the name of the unerased model among the recipes
_NAME = re.compile(r"\w[\w+ .-]*")  # names of tasks and recipes are names of folders


@dataclass(kw_only=True)
class TaskConfig:
    """What is erased together: objects of the world, or styles, by its own names for them."""

    concepts: list[ConceptConfig]


@dataclass(kw_only=True)
class DrawingConfig:
    """How pictures are made. Their size is the world's."""

    steps: int = 20
    guidance: float = 5.0
    batch_size: int = 32


@dataclass(kw_only=True)
class AttackConfig:
    """Attacks; 0 for none. ``cases`` prompts per task are searched as Ring-A-Bell does (``ring_a_bell.py``), and
    ``embeddings`` plain prompts per task have theirs made for the edited weights (``attacks/embedding.py``)."""

    cases: int = 0
    embeddings: int = 0
    reg: float = 0.01  # of the embeddings; the higher, the nearer to those of the prompt
    tokens: int = 8  # of the prompts that are searched
    strength: float = 3.0  # eta of the paper
    population: int = 64
    generations: int = 120


@dataclass(kw_only=True)
class TimingConfig:
    """``repeats`` batches of each recipe in turn, for the first task; 0 for no timing."""

    repeats: int = 5
    batch_size: int = 8


@dataclass(kw_only=True)
class EvaluationConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    # What the model draws and who judges it (``evaluation/world.py``): diorama, listed (below), or a module:Class.
    world: str = "diorama"
    listed: ListedConfig = field(default_factory=ListedConfig)
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    recipes: dict[str, list[StepConfig]] = field(default_factory=dict)
    generation: DrawingConfig = field(default_factory=DrawingConfig)
    cell: int = 100  # prompts of each kind, per task
    attack: AttackConfig = field(default_factory=AttackConfig)
    timing: TimingConfig = field(default_factory=TimingConfig)
    threads: int = 1  # torch's, on a CPU
    device: Device = Device.auto
    seed: int = 0


def load_evaluation(path: str | Path, overrides: Sequence[str] = ()) -> EvaluationConfig:
    """Read, override (``key=value``), type and check the config file *path*; ``ConfigError`` for what cannot work."""
    file = Path(path)
    tree = read_tree(file)
    applied = apply_overrides(tree, overrides, EvaluationConfig)

    def folder_of(key: str) -> Path:
        return file.parent.absolute() if overrider(key, applied) is None else Path.cwd()

    try:
        data, _ = resolve(EvaluationConfig, tree)
        config = build(EvaluationConfig, data)
        place_model(config.model, folder_of)
        place_detectors(config.listed.judges, folder_of, "listed.judges")
        _place_files(config, folder_of)
        for name, recipe in config.recipes.items():
            place_recipe(recipe, folder_of, f"recipes.{name}")
        _check(config)
    except Problem as problem:
        by = overrider(problem.key, applied)
        raise ConfigError(f"{file if by is None else f'override {by!r}'}: {problem}") from None
    return config


def world_of(config: EvaluationConfig) -> World:
    """Return the world that *config* names. Raises ``ConfigError``, or ``Problem`` where what it lists cannot be."""
    if config.world != LISTED:
        return load_world(config.world)
    tasks = [ErasureConfig(concepts=task.concepts) for task in config.tasks.values()]
    return Listed(config.listed, [concept for task in tasks for concept in concepts_of(task)])


def run_config(config: EvaluationConfig, task: str, recipe: str) -> Config:
    """The config of a run that draws *task*'s pictures with *recipe* (``NONE``: with nothing erased)."""
    result = Config(model=config.model, seed=config.seed)
    result.erasure = ErasureConfig(
        concepts=config.tasks[task].concepts, recipe=[] if recipe == NONE else config.recipes[recipe]
    )
    drawing, size = config.generation, [*world_of(config).size]
    result.generation = GenerationConfig(
        steps=drawing.steps, guidance=drawing.guidance, size=size, batch_size=drawing.batch_size
    )
    result.prompts.template, result.output.path = "a", "unused"
    result.audit.policy, result.audit.captions = Policy.keep, CaptionPolicy.drop
    return result


def settings(config: EvaluationConfig) -> dict[str, Any]:
    """What changes pictures for every task and recipe, flat; tasks, recipes and the number of attacks are not in it."""
    values = asdict(config)
    flat: dict[str, Any] = {"cell": config.cell, "seed": config.seed, "threads": config.threads}
    for section in ("model", "generation", "attack"):
        flat |= {f"{section}.{key}": plain(value) for key, value in values[section].items()}
    del flat["attack.cases"], flat["attack.embeddings"]
    if config.world == LISTED:
        flat |= {f"listed.{key}": value for key, value in values["listed"].items() if key != "judges"}  # see its digest
    return flat


def _place_files(config: EvaluationConfig, folder_of: FolderOf) -> None:
    """Give the calibrations of judges, and reference pictures of concepts, whole paths."""
    for i, judge in enumerate(config.listed.judges):
        if judge.calibration is not None:
            key = f"listed.judges[{i}].calibration"
            judge.calibration = place_file(key, judge.calibration, folder_of(key))
    for name, task in config.tasks.items():
        for i, concept in enumerate(task.concepts):
            for j, path in enumerate(concept.references):
                key = f"{under('tasks', name)}.concepts[{i}].references[{j}]"
                concept.references[j] = place_file(key, path, folder_of(key))


def _check(config: EvaluationConfig) -> None:
    try:
        check_name("world", config.world, {**WORLDS, LISTED: ""})
        world = world_of(config)
    except ConfigError as error:
        raise Problem("world", str(error)) from None
    if config.world != LISTED and config.listed != ListedConfig():
        raise Problem("listed", f"is for `world: {LISTED}`, and world is {config.world!r}")
    for key, names in (("tasks", config.tasks), ("recipes", config.recipes)):
        if not names:
            raise Problem(key, "is empty; expected at least one, by name")
        for name in names:
            if not _NAME.fullmatch(name) or name == NONE:
                raise Problem(f"{key}.{name}", "expected a name of letters, digits, blanks and + - . (and not 'none')")
    for key, value, low in (
        ("cell", config.cell, 1),
        ("threads", config.threads, 1),
        ("generation.batch_size", config.generation.batch_size, 1),
        ("attack.cases", config.attack.cases, 0),
        ("attack.embeddings", config.attack.embeddings, 0),
        ("attack.tokens", config.attack.tokens, 1),
        ("attack.population", config.attack.population, 4),
        ("attack.generations", config.attack.generations, 1),
        ("timing.repeats", config.timing.repeats, 0),
        ("timing.batch_size", config.timing.batch_size, 1),
    ):
        if value < low:
            raise Problem(key, f"is {value}; expected at least {low}")
    if config.attack.reg <= 0:
        raise Problem("attack.reg", f"is {config.attack.reg:g}; expected above 0")
    for task in config.tasks:
        _check_task(f"tasks.{task}", config.tasks[task].concepts, config.world, world)
        for recipe in (NONE, *config.recipes):
            try:
                validate_static(run_config(config, task, recipe))
            except Problem as problem:
                raise Problem(_place(problem.key, task, recipe), problem.message) from None


def _place(key: str, task: str, recipe: str) -> str:
    """The key, in this config, of what a run's config calls *key*."""
    return key.replace("erasure.recipe", f"recipes.{recipe}").replace("erasure.concepts", f"tasks.{task}.concepts")


def _check_task(key: str, concepts: list[ConceptConfig], name: str, world: World) -> None:
    if not concepts:
        raise Problem(f"{key}.concepts", "is empty; expected at least one concept")
    kinds = set()
    for i, concept in enumerate(concepts):
        if concept.name not in world.classes:
            near = nearest(concept.name, world.classes)
            raise Problem(f"{key}.concepts[{i}].name", f"the {name} knows no {concept.name!r}{near}")
        kinds.add(concept.name in world.styles)
        for j, alias in enumerate(concept.aliases):
            if concept.name in world.objects and world.canonical(alias) != concept.name:
                words = ", ".join(world.synonyms.get(concept.name, ())) or "none"
                raise Problem(
                    f"{key}.concepts[{i}].aliases[{j}]",
                    f"{show(alias)} is no word of the {name} for {concept.name!r}; it has {words}",
                )
    if len(kinds) > 1:
        raise Problem(f"{key}.concepts", "has objects and styles; expected a task for each")
