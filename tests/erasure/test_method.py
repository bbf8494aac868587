"""The contract of methods: hooks are what a class overrides, and a recipe that does not fit is refused by name."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pipeline.concepts.concept import Concept
from pipeline.config.schema import StepConfig
from pipeline.erasure.method import Method, Steering
from pipeline.erasure.steps import read_steps
from pipeline.erasure.tensors import apply_tensors
from pipeline.errors import ConfigError
from pipeline.models.load import Model

CAT, KNIFE = Concept(name="cat"), Concept(name="knife")
HERE = "tests.erasure.test_method"


@dataclass(kw_only=True)
class MineOptions:
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ConfigError(f"strength is {self.strength}; expected 0 or more")


class Mine(Method):
    """A user's own method."""

    Options = MineOptions

    def steer(self, prompts: Any, sampling: Any) -> None:
        return None


class Hungry(Mine):
    """Needs what no Stable Diffusion has."""

    requires = frozenset({"joint_dreams"})


def steps(model: Model, *recipe: StepConfig) -> list:
    return read_steps(recipe, [CAT, KNIFE], model.family)


def test_hooks_are_what_a_class_overrides() -> None:
    assert [hook for hook in ("edit", "condition", "steer") if Mine.has(hook)] == ["steer"]

    class Guide(Steering):
        def guide(self, prediction: Any) -> Any:
            return prediction.guided

    assert [hook for hook in ("text", "blend", "guide") if Guide().overrides(hook)] == ["guide"]


def test_steps_have_labels_of_their_own_and_typed_options(model: Model) -> None:
    name = f"{HERE}:Mine"
    found = steps(model, StepConfig(method=name), StepConfig(method=name, concepts=["knife"], options={"strength": 2}))
    assert [step.label for step in found] == ["mine", "mine-2"]
    assert [tuple(c.name for c in step.concepts) for step in found] == [("cat", "knife"), ("knife",)]
    assert found[1].options.strength == 2.0
    assert found[1].build(model).label == "mine-2"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (StepConfig(method="uec"), "unknown method 'uec' (did you mean 'uce'?)"),
        (StepConfig(method=f"{HERE}:Ours"), "has no class 'Ours'"),
        (StepConfig(method=f"{HERE}:Mine", concepts=["cta"]), "'cta' is not in the erasure list (did you mean 'cat'?)"),
        (StepConfig(method=f"{HERE}:Mine", options={"strenght": 1}), "has no such option (did you mean 'strength'?)"),
        (StepConfig(method=f"{HERE}:Mine", options={"strength": "much"}), "erasure.recipe[0].options.strength"),
        (StepConfig(method=f"{HERE}:Mine", options={"strength": -1}), "strength is -1"),
        (StepConfig(method=f"{HERE}:Hungry"), "does not work on Stable Diffusion"),
    ],
)  # fmt: skip
def test_a_step_that_cannot_be_is_refused_in_a_line(step: StepConfig, expected: str, model: Model) -> None:
    with pytest.raises(ConfigError) as caught:
        steps(model, step)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensors_that_do_not_fit_are_refused(model: Model) -> None:
    name = model.family.text_projections()[0].name
    with pytest.raises(ConfigError, match="does not fit this model"):
        apply_tensors(model, {name: torch.zeros(2, 2)})
    with pytest.raises(ConfigError, match="no such weight"):
        apply_tensors(model, {"unet.nowhere.weight": torch.zeros(2, 2)})
