"""What all methods that act while sampling have in common: per sample, whatever the batch, and in a stack."""

import functools

import numpy as np
import pytest

from pipeline.config.schema import StepConfig
from pipeline.errors import ConfigError
from pipeline.generation.engine import Batch, Engine
from tests.erasure.conftest import uce_step
from tests.erasure.steering import BATCH, draw, engine

STEPS = {
    "safree": StepConfig(method="safree", options={"up_t": 2}),
    "safree without filter": StepConfig(method="safree", options={"svf": False}),
    "semantic_surgery": StepConfig(method="semantic_surgery", options={"beta": 0.1}),
    "adavd": StepConfig(method="adavd", options={"b": 0.5, "a": 10}),
    "adavd gated": StepConfig(method="adavd", options={"projection": "gated", "tau": 0.2}),
    "sld": StepConfig(method="sld", options={"preset": "max"}),
    "negative_prompt": StepConfig(method="negative_prompt"),
}
ORDER = (2, 0, 3, 1)


@functools.cache
def with_step(name: str) -> Engine:
    return engine(STEPS[name])


@functools.cache
def drawn(name: str) -> Batch:
    return draw(with_step(name))


@functools.cache
def plain() -> Batch:
    return draw(engine())


@pytest.mark.parametrize("name", STEPS)
def test_a_sample_does_not_depend_on_its_place_in_the_batch(name):
    here, there = drawn(name), draw(with_step(name), order=ORDER)
    for place, i in enumerate(ORDER):
        assert np.array_equal(here.images[i], there.images[place])
        for gate, scores in here.gates.items():
            assert scores[i] == there.gates[gate][place]


@pytest.mark.parametrize("name", STEPS)
def test_it_changes_what_asks_for_the_concept(name):
    assert np.abs(plain().images[0].astype(int) - drawn(name).images[0]).mean() > 1
    assert not any(drawn(name).faults)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_it_stacks_with_cease_and_each_does_its_part(name):
    both = draw(engine(STEPS[name], StepConfig(method="cease")))
    assert not any(both.faults)
    assert "cease:cat" in both.gates
    assert np.abs(both.images[0].astype(int) - drawn(name).images[0]).mean() > 0.1


@pytest.mark.slow
def test_all_of_them_stack_on_an_edit():
    batch = draw(engine(uce_step(), StepConfig(method="cease"), *STEPS.values()))
    assert not any(batch.faults)
    labels = {name.partition(":")[0] for name in batch.gates}
    assert labels == {"cease", "safree", "safree-2", "semantic_surgery", "adavd", "adavd-2", "sld"}


def test_two_of_a_kind_are_told_apart():
    steps = [StepConfig(method="sld", concepts=[name], options={"preset": "max"}) for name in ("cat", "tree")]
    batch = draw(engine(*steps, concepts=("cat", "tree")))
    assert set(batch.gates) == {"sld:all", "sld-2:all"}


@pytest.mark.parametrize("method", ["sld", "negative_prompt"])
def test_without_guidance_there_is_nothing_to_steer_away_from(method):
    step = StepConfig(method=method, options={"warmup": 0} if method == "sld" else {})
    with pytest.raises(ConfigError, match=rf"^erasure.recipe\[0\].method: '{method}' .*guidance above 1, which is 1:"):
        engine(step, guidance=1.0)


@pytest.mark.parametrize("name", ["safree", "semantic_surgery", "adavd", "adavd gated"])
def test_the_others_work_without_guidance(name):
    unsteered, steered = draw(engine(guidance=1.0)), draw(engine(STEPS[name], guidance=1.0))
    assert not np.array_equal(unsteered.images[0], steered.images[0])


@pytest.mark.parametrize("method", ["sld", "negative_prompt"])
def test_names_that_the_text_encoder_cannot_read(method):
    step = StepConfig(method=method, options={"warmup": 0} if method == "sld" else {})
    with pytest.raises(ConfigError, match="its 14 concepts are more than the 24 tokens"):
        engine(step, concepts=tuple(f"tree{i}" for i in range(14)))


def test_a_prompt_of_padding_and_an_empty_one_pass_through():
    for name in STEPS:
        batch = draw(with_step(name), prompts=("", BATCH[0]), order=(0, 1))
        assert not any(batch.faults)
