"""Joint attention, opened, gives diffusers' own numbers."""

import pytest
import torch

from pipeline.config.schema import ConceptConfig, ModelConfig, StepConfig
from pipeline.erasure.method import Method
from pipeline.erasure.recipe import active_methods
from pipeline.generation.engine import Engine
from pipeline.models.attention import AttentionState
from pipeline.models.load import load_model
from tests import tiny, tiny_families


@pytest.mark.parametrize("family", ["sd3", "flux"])
@torch.no_grad()
def test_unsteered_is_bit_identical_to_diffusers(family):
    driver = load_model(ModelConfig(path=tiny_families.path(family)), torch.device("cpu")).family
    conditioning = driver.encode(["a cat on the beach", "a tree"])
    noise = torch.randn(2, *driver.latent_shape(32, 48), generator=torch.Generator().manual_seed(0))
    plain = driver.predict(noise, torch.tensor(500.0), conditioning, 4.0)
    state = AttentionState()
    driver.attach(state)
    with state.batch(conditioning.embeds, ()), state.forward():
        assert torch.equal(plain, driver.predict(noise, torch.tensor(500.0), conditioning, 4.0))


def test_where_something_acts_flux_multiplies_as_many_rows_at_once_as_diffusers():
    """A product of fewer rows may sum in another order, on some machines and in some numbers of threads."""
    config = tiny.config(tiny_families.path("flux"))
    config.erasure.concepts = [ConceptConfig(name="cat", anchor="dog")]
    config.erasure.recipe = [StepConfig(method="cease_joint", options={"unlisted": False})]
    model = load_model(config.model, torch.device("cpu"))
    projection = model.pipe.transformer.single_transformer_blocks[0].attn.to_q

    def multiplied(methods: list[Method]) -> set[tuple[int, ...]]:
        shapes: set[tuple[int, ...]] = set()
        handle = projection.register_forward_pre_hook(lambda module, args: shapes.add(tuple(args[0].shape)))
        list(Engine(config, model, methods).generate([tiny.sample(0, "a cat"), tiny.sample(1, "a tree")]))
        handle.remove()
        return shapes

    plain = multiplied([])
    assert len(plain) == 1
    assert plain < multiplied(active_methods(config, model))  # and another text by itself
