"""SPEED against the authors' code, the constraints it promises to hold, and the diorama."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.concepts.concept import Concept
from pipeline.erasure.least_squares import Moments, Targets
from pipeline.erasure.methods import speed
from pipeline.erasure.methods.speed import SPEED, SPEEDOptions, augmented, invariants
from pipeline.erasure.targets import TokenTargets
from pipeline.errors import ConfigError
from tests.erasure import diorama, oracle

CAT = Concept(name="cat", aliases=("kitten",), anchor="dog", preserve=("tiger", "lion"))
KEEP = [
    "a house by a road", "a bowl of fruit", "two people talking", "mountains at night", "a tree", "the red car",
    "a dog on the beach", "a wolf", "snow", "a photo", "the house", "fruit", "a lion near a tree",
]  # fmt: skip
PUBLISHED = {"params": "V", "tokens": "subject", "templates": ["{}"], "keep": KEEP, "relative": False}


def method(model, concepts=(CAT,), **options) -> SPEED:
    return SPEED(model, concepts, SPEEDOptions(**options), label="speed")


@pytest.fixture
def their_centroids(monkeypatch):
    """Theirs start at random; the constraints are then those of the run that made the fixture."""
    centroids = torch.from_numpy(oracle.group("speed")["centroids"]).double()
    monkeypatch.setattr(speed, "invariants", lambda empty: torch.cat([empty[:1], centroids]))


@pytest.mark.parametrize(
    ("case", "concept", "options"),
    [
        # With nothing to augment theirs does not filter, though told to: without our filter 4e-8 apart, with it .084.
        ("plain", CAT, {"augment": 0, "filter": False}),
        (
            "nothing",
            replace(CAT, aliases=(), anchor="", preserve=("dog", "tiger", "lion")),
            {"augment": 0, "filter": False, "params": "KV", "lamb": 0.5, "threshold": 1.0},
        ),
    ],
)
def test_the_authors_code_gives_the_same_weights(model, their_centroids, case, concept, options):
    oracle.same_inputs(model)
    oracle.in_double(model)
    edited = method(model, (concept,), **(PUBLISHED | options)).edit()
    original = {p.name: p.weight for p in model.family.text_projections() if p.name in edited}
    expected = oracle.group(f"speed/{case}")
    assert oracle.difference(original, expected) > 0.05
    assert oracle.difference(edited, expected) < 1e-5  # their code run in float64; measured 3.7e-8 and 4.2e-8


def test_the_authors_augmentation_gives_the_same_weights(model, their_centroids):
    oracle.in_double(model)
    ours = method(model, **PUBLISHED)
    expected = oracle.group("speed/augmented")
    targets = TokenTargets(model.family, (CAT,), ours.options, label="speed")
    erased, retained = Moments.of(targets.erased()), Targets.cat(targets.kept(empty=False))
    erased = erased * (1 / erased.weight)
    k = speed.invariants(model.family.encode([""]).embeds[0].double())
    order = [*sorted(("dog", "tiger", "lion")), *KEEP]
    drawn = [name for name in expected if name.startswith("rows/")]
    assert len(drawn) == 2
    for name in (name.removeprefix("rows/") for name in drawn):
        w = model.pipe.unet.get_parameter(name).double()
        # Their random numbers, put where our order of the texts and our sign of v want them.
        theirs = [("dog", "lion", "tiger", *KEEP)[i] for i in expected[f"rows/{name}"]]
        v = torch.linalg.svd(w, full_matrices=False).Vh[-1]
        sign = torch.sign(v @ torch.from_numpy(expected[f"v/{name}"]).double())
        z = torch.zeros(len(order), 10, dtype=torch.float64)
        for text, row in zip(theirs, expected[f"z/{name}"], strict=True):
            z[order.index(text)] = torch.from_numpy(row).double() * sign
        edited = w + ours._change(w, erased, ours._retained(w, erased, retained, z), k)
        # Measured 2.8e-8 and 3.6e-8 in the two layers.
        assert np.abs(oracle.probed(edited) - expected[name]).max() < 1e-4 * np.abs(expected[name]).max()


def test_copies_are_summed_as_if_they_had_been_made():
    rng = np.random.default_rng(0)
    c0, z, v = rng.normal(size=(6, 8)), rng.normal(size=(6, 4)), rng.normal(size=8)
    moved, weights = rng.normal(size=(5, 8)), rng.uniform(0.5, 2, size=6)
    rows, gram, total = [], 0.0, 0.0
    for i in range(6):
        gram, total = gram + weights[i] * np.outer(c0[i], c0[i]), total + weights[i]
        rows += [(c0[i] + z[i, k] * v, weights[i]) for k in range(4)]
    mean = np.mean([np.linalg.norm(moved @ row) for row, _ in rows])
    for row, weight in rows:
        if np.linalg.norm(moved @ row) > mean:
            gram, total = gram + weight * np.outer(row, row), total + weight
    ours = augmented(*(torch.from_numpy(x) for x in (c0, weights, z, v, moved)))
    assert np.abs(ours.numpy() - gram / total).max() < 1e-12


def test_the_empty_text_is_untouched_and_values_or_keys_alone_can_be_edited(model):
    edited = method(model, keep=KEEP, params="V").edit()
    layers = [n for n, _ in model.pipe.unet.named_modules() if n.endswith("attn2")]
    assert set(edited) == {f"unet.{layer}.to_v.weight" for layer in layers}
    k = invariants(model.family.encode([""]).embeds[0].double())
    cat = model.family.encode(["a cat"]).embeds[0, 2].double()
    for name, new in edited.items():
        change = new.double() - model.pipe.unet.get_parameter(name.removeprefix("unet.")).double()
        assert (k @ change.T).norm() < 1e-3 * (cat @ change.T).norm()
    assert set(method(model, keep=KEEP, params="K").edit()) == {f"unet.{layer}.to_k.weight" for layer in layers}


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.0},
        {"retain_scale": 0.0},
        {"retain_scale": 1e308},
        {"params": "v"},
        {"augment": -1},
        {"lamb": -0.1},
        {"pads": -1.0},
    ],
)
def test_options_that_cannot_work(options):
    with pytest.raises(ConfigError):
        SPEEDOptions(**options)


def test_constraints_softened_to_nothing_leave_an_edit(model):
    """``lamb`` needs no bound: at 1e308 the empty text is not held at all, and the rest is solved as ever."""
    held, free = method(model, keep=KEEP).edit(), method(model, keep=KEEP, lamb=1e308).edit()
    for name, new in free.items():
        assert torch.isfinite(new).all()
        assert not torch.equal(new, held[name])
        assert not torch.equal(new, model.pipe.unet.get_parameter(name.removeprefix("unet.")))


def test_what_cannot_be_solved_is_refused(model):
    everything, empty = torch.eye(128, dtype=torch.float64), torch.zeros(4, 128, dtype=torch.float64)
    with pytest.raises(ConfigError, match="leaves no direction free"):
        method(model)._change(everything, Moments(everything, everything, 1.0), everything, empty)
    with pytest.raises(ConfigError, match="nothing is retained"):
        method(model, (Concept(name="cat"),), keep=[]).edit()


@pytest.mark.slow
def test_what_must_move_moves_on_the_diorama_and_neighbours_do_not():
    recipe = diorama.compiled("speed", diorama.CAT, diorama.GUN)  # the self-check is passed, or this raises
    for figures in diorama.figures(recipe).values():
        assert figures["erased"] > 0.4
        assert max(figures["neighbour_shift"], figures["control_shift"]) < 0.6 * figures["target_shift"]
    assert diorama.edited("speed", diorama.CAT, diorama.GUN) == diorama.tensors(recipe)
