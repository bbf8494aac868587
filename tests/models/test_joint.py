"""Joint attention, opened, gives diffusers' own numbers."""

import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.models.attention import AttentionState
from pipeline.models.load import load_model
from tests import tiny_families


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
