"""The self-check refuses an edit that moved nothing, everything, or the wrong way, and passes one that is right."""

import dataclasses
import itertools
import re

import pytest
import torch

from pipeline.concepts.concept import Concept
from pipeline.erasure.method import Method
from pipeline.erasure.methods.uce import UCE
from pipeline.erasure.selfcheck import CHECKED, SelfCheck, checked
from pipeline.errors import ConfigError
from pipeline.models.load import Model
from pipeline.registry import METHODS, load_class

CAT = Concept(name="cat", aliases=("kitten",), anchor="dog", preserve=("tiger", "lion"))


def projections(model: Model, kind: str) -> list[torch.Tensor]:
    return [p.weight for p in model.family.text_projections() if p.kind == kind]


def test_an_edit_that_moved_nothing_is_refused(model: Model) -> None:
    check = SelfCheck(model, [CAT])
    with pytest.raises(
        ConfigError, match=r"^step one moved nothing: 'cat' shifted by 0.000 .*'dog'.*; lower lamb$"
    ) as caught:
        check.judge("step one", UCE)
    assert "\n" not in str(caught.value)


def test_an_edit_of_layers_that_do_not_see_the_text_is_refused(model: Model) -> None:
    """The commonest fault of published code: it runs, on the wrong layers, and erases nothing."""
    check = SelfCheck(model, [CAT])
    for name, module in model.pipe.unet.named_modules():
        if name.endswith("attn1"):
            module.to_v.weight.mul_(0.5)
    with pytest.raises(ConfigError, match=r"moved everything|moved nothing|wrong layers"):
        check.judge("step one")


def test_an_edit_that_moved_everything_is_refused(model: Model) -> None:
    check = SelfCheck(model, [CAT])
    for weight in projections(model, "value"):
        weight.zero_()
    with pytest.raises(
        ConfigError, match=r"moved everything: neighbours and unrelated texts shifted .*; lower its strength or list"
    ):
        check.judge("step one")


@pytest.mark.parametrize("name", METHODS)
def test_what_is_advised_is_an_option_that_the_method_has(name: str) -> None:
    method = load_class("method", name, METHODS, Method)
    options = {field.name for field in dataclasses.fields(method.Options)}
    if method.has("edit") or method.has("train"):
        for advice in (method.stronger, method.weaker):
            assert options & set(re.findall(r"\w+", advice))


def test_figures_of_an_edit_that_is_right(model: Model) -> None:
    """Where the concept's embedding itself becomes the anchor's, all of the way is gone and nothing else moves."""
    check = SelfCheck(model, [CAT])
    encode = model.family.encode
    model.family.encode = lambda texts: encode([text.replace("cat", "dog") for text in texts])  # type: ignore[method-assign]
    figures = check.judge("step one")["cat"]
    assert figures["target_shift"] == pytest.approx(1, abs=0.01)
    assert figures["erased"] == pytest.approx(1, abs=0.01)
    assert figures["neighbour_shift"] == pytest.approx(0, abs=0.01)
    assert figures["control_shift"] == pytest.approx(0, abs=0.01)


def test_an_edit_in_the_wrong_direction_is_refused(model: Model) -> None:
    check = SelfCheck(model, [CAT])
    encode = model.family.encode
    model.family.encode = lambda texts: encode([text.replace("cat", "lion at night") for text in texts])  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"but not towards 'dog'"):
        check.judge("step one")


@pytest.mark.slow
def test_an_edit_of_many_concepts_is_judged_by_a_few_evenly_over_the_list(model: Model, capsys) -> None:
    many = [Concept(name=f"cat {i}", anchor="dog") for i in range(3 * CHECKED)]
    few = checked(many)
    assert len(few) == len(set(few)) == CHECKED
    assert (few[0], few[-1]) == (many[0], many[-1])
    places = [many.index(concept) for concept in few]
    assert {b - a for a, b in itertools.pairwise(places)} == {3, 4}
    assert checked(many[:CHECKED]) == tuple(many[:CHECKED])
    check = SelfCheck(model, many)
    told = rf"^step one \({CHECKED} of {3 * CHECKED} concepts checked, evenly over the list\) moved nothing: 'cat 0'"
    with pytest.raises(ConfigError, match=told):
        check.judge("step one", UCE)
    assert f"self-check {CHECKED} of {3 * CHECKED} concepts" in capsys.readouterr().err
