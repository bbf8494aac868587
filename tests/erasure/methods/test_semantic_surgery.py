"""Semantic Surgery against the authors' code, and its gate."""

import numpy as np
import pytest
from safetensors.torch import load_file

from pipeline.concepts.concept import Concept
from pipeline.config.schema import StepConfig
from pipeline.erasure.method import Prompts
from pipeline.erasure.methods.semantic_surgery import SemanticSurgery, SemanticSurgeryOptions
from pipeline.errors import ConfigError
from tests.erasure import tiny_oracle
from tests.erasure.methods.test_safree import PROMPTS
from tests.erasure.steering import draw, engine


@pytest.mark.parametrize(("beta", "concerned"), [(-0.12, 0), (-0.06, 1), (-0.03, 2), (-0.01, 4)])
def test_takes_what_the_authors_code_takes(beta, concerned):
    """Five prompts in float64 at four shifts, which concern none to four of them, one of two concepts at once;
    embeddings of norm 6 and strengths agree to 1e-10 (largest seen: 2e-16)."""
    model = tiny_oracle.double_model()
    expected = load_file(tiny_oracle.FIXTURES / "semantic_surgery.safetensors")
    concepts = [Concept(name=name) for name in ("cat", "house", "tiger")]
    method = SemanticSurgery(model, concepts, SemanticSurgeryOptions(beta=beta), label="surgery")
    before = model.family.encode(PROMPTS)
    after = method.condition(Prompts(tuple(PROMPTS), ("",) * len(PROMPTS), before, model.family.encode([""])))
    strengths = method._alphas(before.embeds)
    for i in range(len(PROMPTS)):
        theirs = expected[f"{beta}.embeds.{i}"]
        assert (after.positive.embeds[i, : len(theirs)] - theirs).abs().max() < 1e-10
        assert (strengths[i] - expected[f"{beta}.alphas.{i}"]).abs().max() < 1e-10
    assert (after.positive.embeds != before.embeds).any((1, 2)).sum() == concerned
    assert (after.positive.embeds - before.embeds).abs().max() > (1 if concerned else -1)


def test_prompts_below_the_threshold_are_bit_identical():
    gates = draw(engine(StepConfig(method="semantic_surgery", options={"threshold": 1.0}))).gates
    threshold = float(np.sort(gates["semantic_surgery:cat"])[1:3].mean())  # two of four prompts reach it
    step = StepConfig(method="semantic_surgery", options={"threshold": threshold})
    plain, steered = draw(engine()), draw(engine(step))
    present = steered.gates["semantic_surgery:cat"] >= threshold
    assert present.sum() == 2
    assert np.array_equal(steered.gates["semantic_surgery:cat"], gates["semantic_surgery:cat"])
    for i, there in enumerate(present):
        assert np.array_equal(plain.images[i], steered.images[i]) != there


def test_a_concept_is_as_present_as_the_most_present_of_its_words():
    model = tiny_oracle.model()
    prompts = Prompts(("a kitten",), ("",), model.family.encode(["a kitten"]), None)
    own, alias, both = (
        SemanticSurgery(model, [concept], SemanticSurgeryOptions(), label="s").condition(prompts)
        for concept in (Concept(name="cat"), Concept(name="kitten"), Concept(name="cat", aliases=("kitten",)))
    )
    assert both.gates["s:cat"].item() == max(own.gates["s:cat"].item(), alias.gates["s:kitten"].item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "gamma is 0; expected more than 0"),
        ({"beta": -2.0}, "added to a cosine"),
        ({"threshold": 2.0}, "0 to 1"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        SemanticSurgeryOptions(**options)
