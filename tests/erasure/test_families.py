"""Erasure on SDXL, SD3 and FLUX: the right layers change, the picture where it should, and nothing else."""

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from pipeline.erasure.concept import concepts_of
from pipeline.erasure.method import Method
from pipeline.erasure.recipe import CompiledRecipe, compile_recipe
from pipeline.erasure.uce import UCE, UCEOptions
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from tests.erasure.families import PAIRS, apart, config, draw, engine, load, step

FAMILIES = ("sdxl", "sd3", "flux")
PROMPTS = ["a cat on the beach", "a tree at night", "two cats and a tiger", "a red car"]
ENTRIES = {"transformer.context_embedder.weight", "transformer.time_text_embed.text_embedder.linear_1.weight"}


class WrongLayers(UCE):
    """UCE's map put where image tokens go in, not text."""

    def edit(self) -> dict[str, Tensor]:
        denoiser, prefix = self.model.family.denoiser, self.model.family.denoiser_name
        names = [n for n, p in denoiser.named_parameters() if n.endswith("to_q.weight") and ".attn2." not in n]
        return {f"{prefix}.{name}": -denoiser.get_parameter(name) for name in names}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["uce", "rece"])
def test_an_edit_changes_the_layers_that_text_enters_and_moves_the_concept(family: str, method: str):
    erased, recipe = engine(family, step(method, **PAIRS))
    (tensors,) = recipe.tensors.values()
    names = set(load_tensors(tensors))
    if family == "sdxl":
        layers = [n for n, _ in erased.model.pipe.unet.named_modules() if n.endswith(".attn2")]
        expected = {f"unet.{layer}.to_{x}.weight" for layer in layers for x in "kv"}
        assert names == expected | {"unet.add_embedding.linear_1.weight"}
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


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_of_other_layers_is_refused(family: str):
    with pytest.raises(ConfigError, match=r"wronglayers moved (nothing|everything|'cat' by)"):
        compile_recipe(config(family, step("tests.erasure.test_families:WrongLayers", **PAIRS)), load(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_edit_is_the_same_bytes_and_draws_the_same(family: str):
    erased, recipe = engine(family, step("uce", **PAIRS))
    model = load(family)
    CompiledRecipe.from_files(recipe.record, recipe.tensors.__getitem__).apply(model)
    assert compile_recipe(config(family, step("uce", **PAIRS)), load(family)).tensors == recipe.tensors
    ours, loaded = draw(erased, PROMPTS), draw(Engine(config(family), model, ()), PROMPTS)
    assert np.array_equal(ours.images, loaded.images)
    plain = draw(Engine(config(family), load(family), ()), PROMPTS)
    assert apart(ours.images[0], plain.images[0]) > 10


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


@pytest.mark.parametrize("steps", [("cease",), ("uce", "cease")])
def test_cease_on_sdxl_leaves_unconcerned_samples_and_places_alone(steps: tuple[str, ...]):
    edits = [step("uce", **PAIRS)] if "uce" in steps else []
    steered, _ = engine("sdxl", *edits, step("cease"))
    without, _ = engine("sdxl", *edits)
    first, second, plain = draw(steered, PROMPTS), draw(steered, PROMPTS[::-1]), draw(without, PROMPTS)
    concerned = (first.gates["cease:cat"] >= 0.55) | (first.gates["cease:cat in context"] >= 0.4)
    assert list(concerned[[0, 2]]) == [True, True]
    for i in range(len(PROMPTS)):
        if not concerned[i]:
            assert np.array_equal(first.images[i], plain.images[i])
    unerased = draw(Engine(config("sdxl"), load("sdxl"), ()), PROMPTS)  # after UCE there is little left to switch
    assert apart(first.images[0], unerased.images[0]) > 2
    assert apart(first.images, second.images[::-1]) <= 1


def test_cease_swaps_the_pooled_vector_on_sdxl():
    steered, _ = engine("sdxl", step("cease", context=1.0))  # of a random encoder the context means nothing
    method: Method = steered.methods[0]
    from pipeline.erasure.method import Prompts

    family = steered.model.family
    texts = ("a cat on the beach", "mountains")
    prompts = Prompts(texts, ("", ""), family.encode(texts), None)
    pooled = method.condition(prompts).positive.pooled
    assert torch.allclose(pooled[0], family.encode(["a dog on the beach"]).pooled[0], atol=1e-5)
    assert torch.equal(pooled[1], prompts.positive.pooled[1])
