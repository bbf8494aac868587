"""What the code of a user's own method raises keeps its traceback, whose last line says key, class and error."""

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.cluster.triage import last_line
from pipeline.concepts.concept import Concept
from pipeline.config.schema import ConceptConfig, Config, ErasureConfig, StepConfig
from pipeline.erasure.method import Method, Prompts, Sampling, Steering
from pipeline.erasure.recipe import compile_recipe
from pipeline.erasure.steps import read_steps
from pipeline.models.load import load_model
from pipeline.workshop.explain import write_explanation
from pipeline.workshop.finetune import finetune
from pipeline.workshop.gated import Gates
from tests import tiny
from tests.erasure import families, steering


@dataclass(kw_only=True)
class At:
    at: str

    def __post_init__(self) -> None:
        reach(self.at, "options")


def reach(at: str, name: str) -> None:
    if at == name:
        raise KeyError("broken")


class Part(Steering):
    def __init__(self, at: str):
        super().__init__()
        self.at = at

    def begin(self, *args: Any) -> None:
        reach(self.at, "begin")

    def parts(self) -> Any:
        reach(self.at, "parts")
        return [self] if self.at == "switch" else []

    def text(self, layer: Any, key: Any, value: Any) -> Any:
        reach(self.at, "text")
        return key, value

    def switch(self, *args: Any) -> Any:
        reach(self.at, "switch")

    def blend(self, layer: Any, query: Any, output: Any) -> Any:
        reach(self.at, "blend")
        return output

    def guide(self, prediction: Any) -> Any:
        reach(self.at, "guide")
        return prediction.guided

    def masks(self) -> Any:
        reach(self.at, "masks")
        return {}


class Joint(Steering):
    def joint(self, *args: Any) -> Any:
        raise KeyError("broken")


class Failing(Method):
    """Raises where its option says."""

    Options = At

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        reach(self.options.at, "__init__")

    def condition(self, prompts: Prompts) -> Prompts:
        reach(self.options.at, "condition")
        return prompts.changed(gates={f"{self.label}:cat": torch.zeros(len(prompts))})

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering:
        reach(self.options.at, "steer")
        return Joint() if self.options.at == "joint" else Part(self.options.at)

    def opens(self, gate: str) -> float | None:
        reach(self.options.at, "opens")
        return None

    def explain(self, text: str) -> list[str]:
        reach(self.options.at, "explain")
        return []

    @classmethod
    def check_sampling(cls, options: Any, generation: Any) -> None:
        reach(options.at, "check_sampling")


class Solving(Method):
    def edit(self) -> Any:
        raise KeyError("broken")


class Trained(Method):
    """Raises where its option says; it is what it trains, too."""

    Options = At
    iterations, advice = 2, "none"

    @classmethod
    def files(cls, options: Any, label: str) -> list[Path]:
        reach(options.at, "files")
        return []

    def train(self) -> Any:
        reach(self.options.at, "train")
        return self

    def iterate(self, i: int) -> float:
        reach(self.options.at, "iterate")
        if self.options.at == "restore" and i == 1:
            raise KeyboardInterrupt  # between its checkpoint and its end
        return 0.0

    def state(self) -> Any:
        reach(self.options.at, "state")
        return {"at": torch.zeros(1)}

    def restore(self, state: Any) -> None:
        reach(self.options.at, "restore")

    def tensors(self) -> Any:
        reach(self.options.at, "tensors")
        return {"at": torch.zeros(1)}


class Telling(Solving):
    Options = At

    @classmethod
    def edits_text(cls, options: Any, label: str) -> bool:
        reach(options.at, "edits_text")
        return True

    @classmethod
    def text_gate(cls, family: Any, concepts: Any, options: Any) -> Any:
        reach(options.at, "text_gate")


@dataclass(kw_only=True)
class Gated(At):
    false_alarms: float | None = None


class Forgetful(Method):
    """Its author has forgotten a ``return``."""

    Options = Gated

    def condition(self, prompts: Prompts) -> Prompts:
        return None if self.options.at == "condition" else prompts  # type: ignore[return-value]

    def steer(self, prompts: Prompts, sampling: Sampling) -> Any:
        return mute(self.options.at)

    @classmethod
    def text_gate(cls, family: Any, concepts: Any, options: Any) -> Any:
        return {}


def mute(hook: str) -> Any:
    """Return a steering whose only hook gives nothing; for other hooks no steering."""
    return type("Mute", (Steering,), {hook: lambda self, *args: None})() if hasattr(Steering, hook) else {}


class Unedited(Method):
    def edit(self) -> Any:
        return [torch.zeros(1)]


def step(method: type[Method], **options: Any) -> StepConfig:
    return StepConfig(method=f"{__name__}:{method.__name__}", options=options)


def config(folder: Path, *recipe: StepConfig) -> Config:
    erasure = ErasureConfig(concepts=[ConceptConfig(name="cat")], recipe=list(recipe), finetuned=str(folder))
    made = tiny.config(tiny.path(), erasure=erasure)
    made.output.path = str(folder / "corpus")
    return made


def told(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """The last line of the log, of an error that still shows where it was raised."""
    assert caught.traceback[-1].path == Path(__file__)
    return last_line("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize(
    "at", ["options", "__init__", "check_sampling", "condition", "steer", "begin", "parts", "text", "switch", "blend",
           "guide"]
)  # fmt: skip
def test_what_acts_while_sampling_is_named(at: str):
    with pytest.raises(KeyError) as caught:
        steering.draw(steering.engine(StepConfig(method="negative_prompt"), step(Failing, at=at)))
    assert told(caught) == f"erasure.recipe[1].method: {__name__}:Failing: KeyError: 'broken'"


def test_what_acts_in_joint_attention_is_named():
    with pytest.raises(KeyError) as caught:
        steering.draw(families.engine("sd3", step(Failing, at="joint"))[0])
    assert told(caught) == f"erasure.recipe[0].method: {__name__}:Failing: KeyError: 'broken'"


@pytest.mark.parametrize("at", ["masks", "explain", "opens"])
def test_what_it_shows_of_itself_is_named(at: str, tmp_path: Path):
    with pytest.raises(KeyError) as caught:
        write_explanation(config(tmp_path, step(Failing, at=at)), "a cat", None)
    assert told(caught) == f"erasure.recipe[0].method: {__name__}:Failing: KeyError: 'broken'"


def test_what_edits_is_named(tmp_path: Path):
    settings = config(tmp_path, step(Solving))
    with pytest.raises(KeyError) as caught:
        compile_recipe(settings, load_model(settings.model, torch.device("cpu")))
    assert told(caught) == f"erasure.recipe[0].method: {__name__}:Solving: KeyError: 'broken'"


@pytest.mark.parametrize("at", ["edits_text", "text_gate"])
def test_what_tells_of_a_text_encoder_is_named(at: str):
    family = load_model(tiny.config(tiny.path()).model, torch.device("cpu")).family
    (read,) = read_steps([step(Telling, at=at)], [Concept(name="cat")], family)
    with pytest.raises(KeyError) as caught:
        _ = read.edits_text, read.text_gate(family)
    assert told(caught) == f"erasure.recipe[0].method: {__name__}:Telling: KeyError: 'broken'"


@pytest.mark.parametrize("at", ["files", "train", "iterate", "state", "tensors", "restore"])
def test_what_trains_is_named(at: str, tmp_path: Path):
    settings = config(tmp_path, step(Trained, at=at))
    if at == "restore":
        with pytest.raises(KeyboardInterrupt):
            finetune(settings, 1)
    with pytest.raises(KeyError) as caught:
        finetune(settings, 1)
    assert told(caught) == f"erasure.recipe[0].method: {__name__}:Trained: KeyError: 'broken'"


@pytest.mark.parametrize(
    ("at", "wrong"),
    [("condition", "condition gave a NoneType; expected Prompts"),
     ("steer", "steer gave a dict; expected a Steering, or None"),
     ("blend", "blend gave a NoneType; expected a tensor"), ("guide", "guide gave a NoneType; expected a tensor")],
)  # fmt: skip
def test_a_hook_that_returns_something_else_is_named(at: str, wrong: str):
    with pytest.raises(TypeError) as caught:
        steering.draw(steering.engine(step(Forgetful, at=at)))
    line = last_line("".join(traceback.format_exception(caught.value)))
    assert line == f"erasure.recipe[0].method: {__name__}:Forgetful: TypeError: {wrong}"


def test_a_hook_of_joint_attention_that_returns_something_else_is_named():
    with pytest.raises(TypeError) as caught:
        steering.draw(families.engine("sd3", step(Forgetful, at="joint"))[0])
    line = last_line("".join(traceback.format_exception(caught.value)))
    assert line.endswith("Forgetful: TypeError: joint gave a NoneType; expected a tensor")


def test_an_edit_or_a_gate_that_is_something_else_is_named(tmp_path: Path):
    settings = config(tmp_path, step(Unedited), step(Forgetful, at="none"))
    model = load_model(settings.model, torch.device("cpu"))
    for call, wrong in (
        (lambda: compile_recipe(settings, model), "Unedited: TypeError: edit gave a list; expected tensors by name"),
        (
            lambda: Gates(settings, model.family),
            "Forgetful: TypeError: text_gate gave a dict; expected a TextGate, or None",
        ),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert last_line("".join(traceback.format_exception(caught.value))).endswith(f":{wrong}")
