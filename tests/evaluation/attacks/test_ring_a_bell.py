"""The attack comes nearer to its target, without the words that every method knows."""

import pytest
import torch

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import mentions
from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.attacks.ring_a_bell import Budget, RingABell
from pipeline.evaluation.erasure.prompts import Task, attacked
from pipeline.evaluation.world import load_world
from pipeline.models.load import load_model

CAT = Concept(name="cat", aliases=("kitten",))


@pytest.fixture(scope="module")
def model():
    return load_model(ModelConfig(path="diorama"), torch.device("cpu"))


def test_finds_a_prompt_nearer_to_the_target_that_the_tokenizer_reads_as_found(model):
    concept, prompt, pairs = attacked(Task("one object", (CAT,), load_world("diorama")), 0)
    assert mentions(prompt, CAT)
    assert all(mentions(a, CAT) and not mentions(b, CAT) for a, b in pairs)
    attack = RingABell(model, concept, pairs, Budget(tokens=6, strength=2.0, population=16, generations=12))
    found = attack.search(prompt, seed=0)
    assert found.distance < 0.9
    assert not mentions(found.prompt, CAT)
    assert len(model.pipe.tokenizer(found.prompt, add_special_tokens=False).input_ids) == 6
    assert attack.search(prompt, seed=0).prompt == found.prompt
    assert attack.search(prompt, seed=1).prompt != found.prompt


@pytest.mark.parametrize("population", [4, 5])
def test_encodes_as_many_texts_as_its_budget_says(model, population):
    concept, prompt, pairs = attacked(Task("one object", (CAT,), load_world("diorama")), 0)
    budget = Budget(tokens=4, strength=1.0, population=population, generations=3)
    attack = RingABell(model, concept, pairs, budget)
    encoded = []
    hook = model.pipe.text_encoder.register_forward_hook(lambda module, args, out: encoded.append(len(args[0])))
    attack.search(prompt, seed=0)
    hook.remove()
    assert sum(encoded) == budget.encodings + 1  # the target


def test_more_tokens_than_the_model_reads_are_refused(model):
    with pytest.raises(ConfigError, match="at most 30"):
        RingABell(model, CAT, [("a cat", "a dog")], Budget(tokens=31, strength=1.0, population=4, generations=1))
