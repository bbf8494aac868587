"""The opened attention gives diffusers' own numbers, shares keys and values over steps, and lets steerings act."""

from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, SlicedAttnProcessor

from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.attention import AttentionState, CrossAttentionProcessor
from pipeline.models.layers import Layer
from pipeline.models.load import load_model
from tests import masked, tiny, tiny_families


def parts():
    model = load_model(ModelConfig(path=tiny.path()), torch.device("cpu"))
    conditioning = model.family.encode(["a cat on the beach", "a tree"])
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return model.family, noise, conditioning


@torch.no_grad()
def test_unsteered_is_bit_identical_to_diffusers():
    family, noise, conditioning = parts()
    plain = family.predict(noise, torch.tensor(500), conditioning, 1.0)
    state = AttentionState()
    layers = family.attach(state)
    assert [layer.name.split(".")[1][:4] for layer in layers] == [
        "down",
        "down",
        "mid_",
        "up_b",
        "up_b",
        "up_b",
        "up_b",
    ]
    with state.batch(conditioning.embeds, (), ()):
        first = family.predict(noise, torch.tensor(500), conditioning, 1.0)
        cached = family.predict(noise, torch.tensor(500), conditioning, 1.0)
    assert torch.equal(plain, first)
    assert torch.equal(plain, cached)


class Recorder:
    def __init__(self):
        self.texts, self.blends = [], []

    def text(self, layer, key, value):
        self.texts.append((layer.index, tuple(key.shape)))
        return key, value * 2

    def blend(self, layer, query, output):
        self.blends.append((layer.index, query.shape == output.shape))
        return output + 1


@torch.no_grad()
def test_steerings_act_once_per_batch_on_text_and_at_every_step_on_output():
    family, noise, conditioning = parts()
    state, recorder = AttentionState(), Recorder()
    layers = family.attach(state)
    plain = family.predict(noise, torch.tensor(500), conditioning, 1.0)
    with state.batch(conditioning.embeds, [recorder], [recorder]):
        for _ in range(3):
            steered = family.predict(noise, torch.tensor(500), conditioning, 1.0)
        other = family.predict(noise, torch.tensor(500), conditioning.rows(slice(0, 2)), 1.0)
    assert not torch.equal(plain, steered)
    assert torch.equal(plain, other)  # other embeddings, as of a method's further branch, run unsteered
    assert [index for index, _ in recorder.texts] == [layer.index for layer in layers]
    assert recorder.texts[0][1] == (2, layers[0].heads, tiny.LENGTH, 16)
    assert recorder.blends == [(layer.index, True) for _ in range(3) for layer in layers]
    after = family.predict(noise, torch.tensor(500), conditioning, 1.0)
    assert torch.equal(plain, after)


@torch.no_grad()
def test_masked_tokens_are_not_seen_just_as_in_diffusers():
    family = masked.load().family
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning = family.encode(["a cat on the beach", "a tree"])
    plain = family.predict(noise, torch.tensor(500), conditioning, 1.0)
    state, recorder = AttentionState(), Recorder()
    family.attach(state)
    with state.batch(conditioning.embeds, (), ()):
        assert torch.equal(plain, family.predict(noise, torch.tensor(500), conditioning, 1.0))
    seen = replace(conditioning, mask=None)
    assert not torch.allclose(plain, family.predict(noise, torch.tensor(500), seen, 1.0), atol=0.01)
    with (
        state.batch(conditioning.embeds, (), [recorder]),
        pytest.raises(ConfigError, match=r"^unet\.down.*attn2 masks tokens of the text, and its family does not say"),
    ):
        family.predict(noise, torch.tensor(500), conditioning, 1.0)
    with state.batch(conditioning.embeds, (), [recorder], masked=True):
        family.predict(noise, torch.tensor(500), conditioning, 1.0)
    assert recorder.blends


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"norm_num_groups": 8}, "group_norm"),
        ({"query_dim": 32, "spatial_norm_dim": 8}, "spatial_norm"),
        ({"cross_attention_norm": "layer_norm"}, "norm_cross"),
        ({"qk_norm": "rms_norm"}, "norm_q, norm_k"),
        ({"added_kv_proj_dim": 8}, "add_k_proj"),
        ({"residual_connection": True}, "residual_connection"),
        ({"rescale_output_factor": 2.0}, "rescale_output_factor"),
        ({}, None),
    ],
)
def test_what_diffusers_processor_does_besides_is_refused(options: dict, what: str | None):
    attn = Attention(**{"query_dim": 8, "cross_attention_dim": 8, "heads": 2, "dim_head": 8, **options})
    attn.set_processor(AttnProcessor2_0())
    layer = Layer("unet.x", 0, 2, attn)
    if what is None:
        CrossAttentionProcessor(layer, AttentionState())
        return
    with pytest.raises(ConfigError, match=rf"^unet\.x has {what}, which cannot be steered$"):
        CrossAttentionProcessor(layer, AttentionState())


@pytest.mark.parametrize("name", [None, "sdxl", "sd3", "flux"])
def test_processors_of_others_are_not_replaced(name: str | None):
    path = tiny.path() if name is None else tiny_families.path(name)
    family = load_model(ModelConfig(path=path), torch.device("cpu")).family
    family.attach(AttentionState())
    layer = family.attach(AttentionState())[-1]  # ours may be
    layer.module.set_processor(SlicedAttnProcessor(1))
    with pytest.raises(ConfigError, match=f"^{layer.name} has a processor of its own, SlicedAttnProcessor, whose part"):
        family.attach(AttentionState())


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_masks_are_refused_in_joint_attention(name: str):
    family = load_model(ModelConfig(path=tiny_families.path(name)), torch.device("cpu")).family
    layer = family.attach(AttentionState())[0]
    image, mask = torch.zeros(1, 4, 8), torch.ones(1, 1, 8)
    with pytest.raises(ConfigError, match=f"^{layer.name} masks tokens, which is not supported in joint attention$"):
        layer.module.processor(layer.module, image, image, attention_mask=mask)
