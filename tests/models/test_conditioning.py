"""A conditioning keeps all that it holds, whatever is done to it."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.config.schema import ModelConfig
from pipeline.erasure.method import Method, Prompts
from pipeline.erasure.steps import refusals
from pipeline.evaluation.attacks.embedding import EmbeddingAttack
from pipeline.models.family import Conditioning
from pipeline.models.load import load_model
from pipeline.registry import METHODS, load_class
from tests import tiny_families


@dataclass(frozen=True)
class Further(Conditioning):
    """With a field that nothing knows of."""

    further: Tensor | None = None


def further(rows: int) -> Further:
    return Further(torch.rand(rows, 3, 4), torch.rand(rows, 4), torch.rand(rows, 3) > 0.5, torch.rand(rows, 2))


def test_rows_and_devices_keep_every_field():
    given = further(4)
    for made, index in ((given.rows([2, 0]), [2, 0]), (given.rows(slice(1, 3)), [1, 2]), (given.to("cpu"), range(4))):
        assert isinstance(made, Further)
        for name, tensor in vars(given).items():
            assert torch.equal(getattr(made, name), tensor[list(index)]), name


def test_parts_are_joined_in_every_field():
    one, other = further(2), further(1)
    joined = Conditioning.cat([one, other])
    assert isinstance(joined, Further)
    for name, tensor in vars(one).items():
        assert torch.equal(getattr(joined, name), torch.cat([tensor, getattr(other, name)])), name
    with pytest.raises(ValueError, match=r"1 of 2 conditionings have further; expected all or none"):
        Conditioning.cat([one, replace(other, further=None)])


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_no_method_drops_a_field(name: str):
    model = load_model(ModelConfig(path=tiny_families.path(name)), torch.device("cpu"))
    family = type(model.family)

    class Encoding(family):
        """Encodes with a field that methods know nothing of: the number of each text's letters."""

        def encode(self, texts):
            plain = super().encode(texts)
            return Further(plain.embeds, plain.pooled, None, torch.tensor([[float(len(text))] for text in texts]))

    model = replace(model, family=Encoding(model.pipe, model.device))
    texts = ("a photo of a cat", "a red car")
    prompts = Prompts(texts, ("", ""), model.family.encode(texts), model.family.encode_negative(["", ""]))
    acted = set()
    for method_name in METHODS:
        kind: type[Method] = load_class("method", method_name, METHODS, Method)
        if refusals(kind, model.family) or not kind.has("condition"):
            continue
        options = kind.Options(**({"threshold": 0.0} if method_name == "semantic_surgery" else {}))
        after = kind(model, [Concept(name="cat", anchor="dog")], options, label=method_name).condition(prompts)
        for branch in (after.positive, after.negative):
            assert isinstance(branch, Further), method_name
        assert torch.equal(after.positive.further, prompts.positive.further), method_name
        acted |= {method_name} if after.positive is not prompts.positive else set()
    assert acted == {"semantic_surgery", "cease" if name == "sdxl" else "cease_joint"}
    projections = {p.name: p.weight.clone() for p in model.family.text_projections()}
    attacked = EmbeddingAttack(model, [Concept(name="cat")], projections, 0.1).condition(prompts)
    assert torch.equal(attacked.positive.further, prompts.positive.further)
