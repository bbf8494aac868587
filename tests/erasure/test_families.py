"""Erasure on SDXL, SD3 and FLUX: the right layers change, the picture where it should, and nothing else."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor

from pipeline.config.concepts import concepts_of
from pipeline.erasure.gate.calibration import OPENS
from pipeline.erasure.method import Method
from pipeline.erasure.methods.uce import UCE, UCEOptions
from pipeline.erasure.recipe import CompiledRecipe, compile_recipe
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.models import processors
from pipeline.models.layers import merge_heads
from tests.erasure.families import PAIRS, apart, config, draw, engine, load, step

FAMILIES = ("sdxl", "sd3", "flux")
EDITS = [*((family, method) for family in FAMILIES for method in ("uce", "rece")), ("sdxl", "speed")]
PROMPTS = ["a cat on the beach", "a tree at night", "two cats and a tiger", "a red car"]
ENTRIES = {"transformer.context_embedder.weight", "transformer.time_text_embed.text_embedder.linear_1.weight"}


class WrongLayers(UCE):
    """UCE's map put where image tokens go in, not text."""

    def edit(self) -> dict[str, Tensor]:
        denoiser, prefix = self.model.family.denoiser, self.model.family.denoiser_name
        names = [n for n, p in denoiser.named_parameters() if n.endswith("to_q.weight") and ".attn2." not in n]
        return {f"{prefix}.{name}": -denoiser.get_parameter(name) for name in names}


@functools.cache
def edited(family: str, method: str) -> tuple[Engine, CompiledRecipe]:
    return engine(family, step(method, **PAIRS))


@functools.cache
def unerased(family: str) -> Engine:
    return Engine(config(family), load(family), ())


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), EDITS)
def test_an_edit_changes_the_layers_that_text_enters_and_moves_the_concept(family: str, method: str):
    erased, recipe = edited(family, method)
    (tensors,) = recipe.tensors.values()
    names = set(load_tensors(tensors))
    if family == "sdxl":
        layers = [n for n, _ in erased.model.pipe.unet.named_modules() if n.endswith(".attn2")]
        pooled = set() if method == "speed" else {"unet.add_embedding.linear_1.weight"}  # SPEED leaves it alone
        assert names == pooled | {f"unet.{layer}.to_{x}.weight" for layer in layers for x in "kv"}
    else:
        assert names == ENTRIES
    original = load(family)
    for name, parameter in original.family.denoiser.named_parameters():
        full = f"{original.family.denoiser_name}.{name}"
        same = torch.equal(parameter, erased.model.family.denoiser.get_parameter(name))
        assert same == (full not in names), full
    (figures,) = recipe.record["steps"][0]["selfcheck"].values()
    assert figures["erased"] > 0.5
    assert figures["target_shift"] > 2 * figures["neighbour_shift"]


def test_sdxl_keeps_the_columns_that_the_sizes_enter_by():
    model = load("sdxl")
    (pooled,) = [p for p in model.family.text_projections() if p.kind == "pooled"]
    assert pooled.width < pooled.weight.shape[1]
    edited = UCE(model, concepts_of(config("sdxl").erasure), UCEOptions(**PAIRS), label="uce").edit()[pooled.name]
    assert torch.equal(edited[:, pooled.width :], pooled.weight[:, pooled.width :])
    assert not torch.equal(edited[:, : pooled.width], pooled.weight[:, : pooled.width])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_of_other_layers_is_refused(family: str):
    with pytest.raises(ConfigError, match=r"wronglayers moved (nothing|everything|'cat' by)"):
        compile_recipe(config(family, step("tests.erasure.test_families:WrongLayers", **PAIRS)), load(family))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), EDITS)
def test_a_saved_edit_is_the_same_bytes_and_draws_the_same(family: str, method: str, tmp_path: Path):
    erased, recipe = edited(family, method)
    ((name, data),) = recipe.tensors.items()
    (tmp_path / name).write_bytes(data)
    model = load(family)
    CompiledRecipe.from_files(recipe.record, lambda name: (tmp_path / name).read_bytes()).apply(model)
    parameters = dict(model.parameters())
    assert save({key: parameters[key].detach() for key in load_tensors(data)}) == data
    ours, loaded = draw(erased, PROMPTS), draw(Engine(config(family), model, ()), PROMPTS)
    assert np.array_equal(ours.images, loaded.images)
    assert apart(ours.images[0], draw(unerased(family), PROMPTS).images[0]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_solved_again_is_the_same_bytes(family: str):
    again = compile_recipe(config(family, step("uce", **PAIRS)), load(family))
    assert again.tensors == edited(family, "uce")[1].tensors


def test_every_stream_and_the_pooled_vector_are_erased_on_sd3():
    model = load("sd3")
    edited = UCE(model, concepts_of(config("sd3").erasure), UCEOptions(**PAIRS), label="uce").edit()
    cat, dog = model.family.encode(["a cat"]), model.family.encode(["a dog"])
    context, pooled = model.family.text_projections()
    clip, t5 = model.family.streams

    def left(weight: Tensor, c: Tensor, a: Tensor) -> float:
        """How much of the way from c to a remains."""
        return ((c @ weight.T - a @ old.T).norm() / (c @ old.T - a @ old.T).norm()).item()

    old = context.weight
    for stream in (clip, t5):
        rows = slice(stream.first, stream.offset + stream.length)
        assert left(edited[context.name], cat.embeds[0, rows], dog.embeds[0, rows]) < 0.5
    old = pooled.weight
    assert left(edited[pooled.name], cat.pooled, dog.pooled) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("steps", [("cease",), ("uce", "cease")])
def test_cease_on_sdxl_leaves_unconcerned_samples_alone(steps: tuple[str, ...]):
    edits = [step("uce", **PAIRS)] if "uce" in steps else []
    steered, _ = engine("sdxl", *edits, step("cease"))
    without = edited("sdxl", "uce")[0] if edits else unerased("sdxl")
    first, second, plain = draw(steered, PROMPTS), draw(steered, PROMPTS[::-1]), draw(without, PROMPTS)
    concerned = (first.gates["cease:cat"] >= OPENS) | (first.gates["cease:cat in context"] >= OPENS)
    assert list(concerned[[0, 2]]) == [True, True]
    alone = np.flatnonzero(~concerned)
    assert len(alone)
    assert np.array_equal(first.images[alone], plain.images[alone])
    original = draw(unerased("sdxl"), PROMPTS)  # after UCE there is little left to switch
    assert apart(first.images[0], original.images[0]) > 2
    assert apart(first.images, second.images[::-1]) <= 1


def test_cease_on_sdxl_switches_attention_in_its_place_alone(monkeypatch):
    """In every layer and step; a picture as a whole cannot show it, as the layers between carry every change about."""
    shares, crossed = [], processors.crossed

    def watched(heard, query, output):
        before, positions = merge_heads(output.clone()), query.shape[2]
        after = crossed(heard, query, output)
        (switching,), (other,) = heard.state.switchings, heard.others
        place = torch.zeros(before.shape[0], positions, dtype=torch.bool)
        place[-other.key.shape[0] :] = switching.weights[positions][:, :, 0] > 0
        assert torch.equal((after != before).any(2), place)
        shares.extend(place[-other.key.shape[0] :].float().mean(1).tolist())
        return after

    monkeypatch.setattr(processors, "crossed", watched)
    draw(engine("sdxl", step("cease", unlisted=False, context=False, threshold=0.9))[0], PROMPTS)
    assert 0.0 in shares  # it looks first
    assert any(0 < share < 1 for share in shares)


def test_what_hears_little_of_the_concept_stays_bit_identical_on_sdxl():
    prompts = ["a tree at night", "a red car", "a bowl of fruit", "mountains"]
    listening = {"unlisted": False, "context": False}  # of a random encoder neither words nor context mean anything
    silent = draw(engine("sdxl", step("cease", **listening, attention=0.999))[0], prompts)
    assert np.array_equal(silent.images, draw(unerased("sdxl"), prompts).images)
    scores = silent.gates["cease:cat heard"]
    bound = float(np.sort(scores)[1:3].mean())  # two of four reach it
    steered = draw(engine("sdxl", step("cease", **listening, attention=bound))[0], prompts)
    assert np.array_equal(steered.gates["cease:cat heard"], scores)
    assert ((steered.images != silent.images).any((1, 2, 3)) == (scores >= bound)).all()


def test_cease_swaps_the_pooled_vector_on_sdxl():
    steered, _ = engine("sdxl", step("cease", unlisted=False, context=False))  # of a random encoder nothing is near
    method: Method = steered.methods[0]
    from pipeline.erasure.method import Prompts

    family = steered.model.family
    texts = ("a cat on the beach", "mountains")
    prompts = Prompts(texts, ("", ""), family.encode(texts), None)
    pooled = method.condition(prompts).positive.pooled
    assert torch.allclose(pooled[0], family.encode(["a dog on the beach"]).pooled[0], atol=1e-5)
    assert torch.equal(pooled[1], prompts.positive.pooled[1])
