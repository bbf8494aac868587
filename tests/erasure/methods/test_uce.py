"""UCE against eq. 7 written out in numpy and against the authors' code, what its pairs are made of, and the diorama."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from pipeline.concepts.concept import Concept
from pipeline.config.concepts import concepts_of
from pipeline.erasure.least_squares import Moments, Targets
from pipeline.erasure.methods.uce import UCE, UCEOptions, text_map
from pipeline.erasure.recipe import compile_recipe
from pipeline.erasure.targets import TargetOptions, TokenTargets
from pipeline.erasure.templates import fill
from pipeline.errors import ConfigError
from pipeline.models.load import load_model
from tests import tiny
from tests.erasure import diorama, oracle
from tests.erasure.conftest import KEEP, config, uce_step

CAT = Concept(name="cat", aliases=("kitten",), anchor="dog", preserve=("tiger",))


def method(model, concepts=(CAT,), **options) -> UCE:
    return UCE(model, concepts, UCEOptions(**options), label="uce")


def pairs_of(model, concepts=(CAT,), **options) -> Targets:
    made = TokenTargets(model.family, concepts, UCEOptions(**options), label="uce")
    return Targets.cat([*made.erased(), *made.kept()])


def test_closed_form_equals_the_papers_formula():
    rng = np.random.default_rng(0)
    w, c, a = rng.normal(size=(7, 16)), rng.normal(size=(9, 16)), rng.normal(size=(9, 16))
    k, weights = rng.normal(size=(5, 16)), rng.uniform(0.2, 3, size=14)
    lamb = 0.3
    # eq. 7 as printed: sums over erased (v* = W a) and preserved (v* = W k), then an explicit inverse.
    left, right = lamb * w, lamb * np.eye(16)
    for i in range(9):
        left += weights[i] * np.outer(w @ a[i], c[i])
        right += weights[i] * np.outer(c[i], c[i])
    for j in range(5):
        left += weights[9 + j] * np.outer(w @ k[j], k[j])
        right += weights[9 + j] * np.outer(k[j], k[j])
    expected = left @ np.linalg.inv(right)
    erased = Targets(*(torch.from_numpy(x) for x in (c, a, weights[:9])))
    kept = Targets(*(torch.from_numpy(x) for x in (k, k, weights[9:])))
    m = text_map(Moments.of([erased, kept]), lamb, "uce")
    assert m.dtype == torch.float64
    assert np.abs(w @ m.numpy() - expected).max() < 1e-10


@pytest.mark.parametrize(
    ("case", "concept", "keep"),
    [
        ("anchored", replace(CAT, preserve=("tiger", "lion")), ["two people talking"]),
        ("nothing", replace(CAT, aliases=(), anchor=""), []),
    ],
)
def test_the_authors_code_gives_the_same_weights(model, case, concept, keep):
    oracle.same_inputs(model)
    edited = method(model, (concept,), tokens="subject", templates=["{}"], keep=keep).edit()
    assert oracle.difference(edited, oracle.group("original")) > 0.05
    # The authors invert in float32, we solve in float64: measured 5.1e-5 (anchored) and 3.1e-5 (nothing).
    assert oracle.difference(edited, oracle.group(f"uce/{case}")) < 1e-4


def test_edits_keys_and_values_of_every_cross_attention_layer_and_nothing_else(model):
    edited = method(model).edit()
    layers = [n for n, _ in model.pipe.unet.named_modules() if n.endswith("attn2")]
    assert set(edited) == {f"unet.{layer}.to_{x}.weight" for layer in layers for x in "kv"}
    assert all(tensor.isfinite().all() for tensor in edited.values())


def test_a_model_that_predicts_velocity_is_edited_alike_and_the_self_check_holds(model):
    """As SD 2.x does; the two tiny models have the same weights."""
    settings = config(uce_step())
    settings.model.path = tiny.path("v_prediction")
    recipe = compile_recipe(settings, load_model(settings.model, model.device))
    alike = UCE(model, concepts_of(settings.erasure), UCEOptions(**uce_step().options), label="uce").edit()
    assert list(recipe.tensors.values()) == [save(alike)]
    figures = recipe.record["steps"][0]["selfcheck"]["cat"]
    assert figures["erased"] > 0.5
    assert figures["target_shift"] > 2 * figures["neighbour_shift"]


def test_the_concepts_tokens_land_on_the_anchors_in_any_context_and_preserved_ones_stay(model):
    few = {"templates": ["{}", "a {}", "a photo of a {}"], "keep": KEEP}
    pairs = pairs_of(model, **few)
    name, new = next(iter(method(model, lamb=1e-3, **few).edit().items()))
    old = model.pipe.unet.get_parameter(name.removeprefix("unet.")).double()

    def error(weight, inputs, targets):
        return ((inputs @ weight.double().T - targets @ old.T).norm() / (targets @ old.T).norm()).item()

    moved = (pairs.inputs != pairs.targets).any(1)
    assert moved.sum() > 50
    assert error(new, pairs.inputs[moved], pairs.targets[moved]) < 0.15 * error(
        old, pairs.inputs[moved], pairs.targets[moved]
    )
    assert error(new, pairs.inputs[~moved], pairs.inputs[~moved]) < 0.05


def test_padding_carries_the_concept_and_is_erased_too(model):
    without = pairs_of(model, pads=0.0)
    with_pads = pairs_of(model, pads=4.0)
    weight = lambda pairs: pairs.weights[(pairs.inputs != pairs.targets).any(1)].sum().item()  # noqa: E731
    # 2 words in 6 templates, whose padding weighs 4 each
    assert weight(with_pads) - weight(without) == pytest.approx(2 * 6 * 4)


def test_solves_jointly_and_does_not_preserve_what_it_erases(model):
    dog = Concept(name="dog", anchor="tree", preserve=("wolf",))
    joint = method(model, (CAT, dog)).edit()
    apart = method(model, (CAT,)).edit()
    name = next(iter(joint))
    assert not torch.equal(joint[name], apart[name])
    embedding = model.family.encode(["dog"]).embeds[0, 1].double()  # the cat's anchor: kept, were it not erased too
    pairs = pairs_of(model, (CAT, dog))
    kept = pairs.inputs[(pairs.inputs == pairs.targets).all(1)]
    assert (kept - embedding).norm(dim=1).min() > 1e-3


def test_exceptions_are_texts_to_preserve_unless_they_name_what_is_erased(model):
    cat = Concept(name="cat", anchor="dog", keep=("cat burglar", "cat knife"))
    knife = Concept(name="knife")
    texts = TokenTargets(model.family, [cat, knife], TargetOptions(), label="uce").keeps()
    assert {"a cat burglar", "a photo of a cat burglar", "two cat burglars"} <= {*texts}
    assert not [text for text in texts if "knife" in text]
    assert (
        "a cat burglar" not in TokenTargets(model.family, [Concept(name="cat")], TargetOptions(), label="uce").keeps()
    )


def test_fill():
    assert [fill("two {plural}", "fox"), fill("a {} and a tree", ""), fill("{}", "")] == ["two foxes", "and a tree", ""]


BAD = [
    {"lamb": 0.0},
    {"erase": -1.0},
    {"templates": ["a photo"]},
    {"templates": ["{}", "{} in {color}"]},
    {"templates": ["{} {"]},
    {"templates": ["a {}ish thing"]},
    {"templates": []},
    {"keep": ["a tree", "a tree"]},
    {"tokens": "subjects"},
]


@pytest.mark.parametrize("options", BAD)
def test_options_that_cannot_work(options):
    with pytest.raises(ConfigError):
        UCEOptions(**options)


def test_a_singular_system_is_refused(model):
    with pytest.raises(ConfigError, match="uce: the system is singular; raise lamb"):
        method(model, lamb=1e-30, tokens="subject", templates=["{}"], keep=[]).edit()


@pytest.mark.slow
def test_what_must_move_moves_on_the_diorama_and_neighbours_do_not():
    # A gun to nothing, at the official lamb of 0.5, moves the self-check's unrelated texts by 0.70 of what the cat
    # moves, and is refused; at 2 by 0.54, and cat and gun are as gone (erased 0.94 and 0.81). At 300 objects that are
    # listed nowhere move far less as well (uce.py).
    recipe = diorama.compiled("uce", diorama.CAT, diorama.GUN, lamb=2.0)  # the self-check is passed, or this raises
    for figures in diorama.figures(recipe).values():
        assert figures["erased"] > 0.5
        assert max(figures["neighbour_shift"], figures["control_shift"]) < 0.6 * figures["target_shift"]
    assert diorama.edited("uce", diorama.CAT, diorama.GUN, lamb=2.0) == diorama.tensors(recipe)


def test_templates_that_name_what_is_erased_make_no_pairs(model):
    house = Concept(name="house", anchor="tree")
    edits = TokenTargets(model.family, (house,), UCEOptions(), label="uce").edits()
    assert [text for text, *_ in edits] == [
        "house",
        "a house",
        "two houses",
        "a photo of a house",
        "a house and a tree",
    ]
    with pytest.raises(ConfigError, match="every one of its templates names an erased concept"):
        method(model, (house,), templates=["a house and a {}"]).edit()


def test_relative_lamb_means_the_same_whatever_the_size_of_embeddings(model):
    def maps(scale, **options):
        uce = method(model, **options)
        erased, kept = uce.moments()
        scaled = [Moments(part.gram * scale, part.cross * scale, part.weight) for part in (erased, kept)]
        return uce.map(*scaled, uce.projections())

    erased, kept = method(model).moments()
    unit = (erased + kept).squared_length
    relative = maps(1.0, lamb=3.0, relative=True)
    assert torch.allclose(relative, maps(1.0, lamb=3.0 * unit), atol=1e-12)
    assert torch.allclose(relative, maps(1e-4, lamb=3.0, relative=True), atol=1e-9)
    assert not torch.allclose(relative, maps(1e-4, lamb=3.0 * unit), atol=1e-2)
