"""The opened attention gives diffusers' own numbers, shares keys and values over steps, and lets steerings act."""

from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, SlicedAttnProcessor

from pipeline.config.schema import ModelConfig
from pipeline.erasure.method import Steering
from pipeline.errors import ConfigError
from pipeline.models.attention import AttentionState, projected
from pipeline.models.family import Conditioning
from pipeline.models.load import load_model
from pipeline.models.replaceable import check_cross_attention
from pipeline.models.switching import MARKS, Mode, OtherText, Switching, attention_to
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
    with state.batch(conditioning.embeds, ()):
        state.prepare()
        with state.forward():
            first = family.predict(noise, torch.tensor(500), conditioning, 1.0)
        given = family.predict(noise, torch.tensor(500), conditioning, 1.0)
    assert torch.equal(plain, first)
    assert torch.equal(plain, given)


class Recorder(Steering):
    def __init__(self):
        super().__init__()
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
    assert state.traceable
    with state.batch(conditioning.embeds, [recorder]):
        assert not state.traceable
        state.prepare()
        for _ in range(3):
            with state.forward():
                steered = family.predict(noise, torch.tensor(500), conditioning, 1.0)
        other = family.predict(noise, torch.tensor(500), conditioning.rows(slice(0, 2)), 1.0)
    assert not torch.equal(plain, steered)
    assert torch.equal(plain, other)  # a forward of another branch runs unsteered
    assert recorder.texts == [(layer.index, (2, layer.heads, tiny.LENGTH, 16)) for layer in layers]
    assert recorder.blends == [(layer.index, True) for _ in range(3) for layer in layers]
    after = family.predict(noise, torch.tensor(500), conditioning, 1.0)
    assert torch.equal(plain, after)


class Switch(Steering):
    """Switches the positives to texts *embeds* as far as ``weight (B, 1, 1)`` says, and gathers all attention."""

    def __init__(self, embeds, weight, sizes=(64, 16, 4)):
        super().__init__()
        self.embeds = embeds
        marks = torch.ones(len(embeds), 1, tiny.LENGTH, MARKS)
        weights = {n: weight.expand(-1, n, 1) for n in sizes}
        self.switching = Switching(own_marks=marks, marks=marks, most=16, weights=weights)

    def switch(self, layer, key, value):
        return OtherText(*projected(layer.module, self.embeds), key[-len(self.embeds) :])


@torch.no_grad()
def test_what_is_switched_hears_the_other_text_and_weight_0_leaves_every_bit():
    family, noise, conditioning = parts()
    noise, other = noise.repeat(2, 1, 1, 1), family.encode(["a dog at night", "a red car"])
    both = Conditioning.cat([conditioning, conditioning])  # negatives, then positives
    switched = Conditioning.cat([conditioning, conditioning.rows([0]), other.rows([1])])
    state = AttentionState()
    family.attach(state)
    plain, wanted = (family.predict(noise, torch.tensor(500), c, 1.0) for c in (both, switched))
    steering = Switch(other.embeds, torch.tensor([0.0, 1.0]).view(2, 1, 1))
    with state.batch(both.embeds, [steering]):
        state.prepare()
        modes = []
        for gathers in (True, False):
            steering.switching.gathers, steering.switching.maps = gathers, []
            with state.forward():
                modes.append(state.mode)
                got = family.predict(noise, torch.tensor(500), both, 1.0)
            assert torch.equal(got[:3], plain[:3])
            assert torch.allclose(got[3], wanted[3], atol=1e-5)
            assert not torch.allclose(got[3], plain[3], atol=1e-2)
            maps = steering.switching.maps
            assert [m.shape for m in maps] == [(2, 2, 16)] * 4 * gathers, "of the coarser layers"
            assert all(torch.allclose(m, torch.ones(())) for m in maps), "all tokens are marked"
    assert modes == [Mode.gathering, Mode.switching]
    assert torch.equal(family.predict(noise, torch.tensor(500), both, 1.0), plain)


@torch.no_grad()
def test_attention_to_marked_tokens_is_its_share_of_the_softmax():
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 3, n, 16, generator=generator) for n in (10, 7))
    marks, mask = torch.zeros(2, 7), torch.ones(2, 7, dtype=torch.bool)
    marks[0, 1:3] = marks[1, 5] = 1
    mask[0, 4:] = False
    columns = marks[:, None, :, None].expand(-1, -1, -1, MARKS)
    logits = (query.double() @ key.double().transpose(-1, -2) / 4).masked_fill(~mask[:, None, None], -torch.inf)
    share = (logits.softmax(-1) * marks[:, None, None]).sum(-1).mean(1)
    assert torch.allclose(attention_to(query, key, columns, mask[:, None, None]).double(), share, atol=1e-6)


@torch.no_grad()
def test_two_samplers_of_one_model_do_not_steer_for_each_other():
    family, noise, conditioning = parts()
    first, second, recorder = AttentionState(), AttentionState(), Recorder()
    family.attach(first)
    family.attach(second)
    for state in (first, second):
        with state.batch(conditioning.embeds, [recorder]):
            state.prepare()
            with state.forward():
                family.predict(noise, torch.tensor(500), conditioning, 1.0)
    assert len(recorder.blends) == 2 * len(first.layers)


@torch.no_grad()
def test_masked_tokens_are_not_seen_just_as_in_diffusers():
    family = masked.load().family
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning = family.encode(["a cat on the beach", "a tree"])
    plain = family.predict(noise, torch.tensor(500), conditioning, 1.0)
    state, recorder = AttentionState(), Recorder()
    family.attach(state)

    def forward(steerings, told: bool) -> torch.Tensor:
        with state.batch(conditioning.embeds, steerings, masked=told):
            state.prepare()
            with state.forward():
                return family.predict(noise, torch.tensor(500), conditioning, 1.0)

    assert torch.equal(plain, forward([], told=False))
    seen = replace(conditioning, mask=None)
    assert not torch.allclose(plain, family.predict(noise, torch.tensor(500), seen, 1.0), atol=0.01)
    with pytest.raises(ConfigError, match=r"^unet\.down.*attn2 masks tokens of the text, and its family does not say"):
        forward([recorder], told=False)
    forward([recorder], told=True)
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
    if what is None:
        check_cross_attention("unet.x", attn)
        return
    with pytest.raises(ConfigError, match=rf"^unet\.x has {what}, which cannot be steered$"):
        check_cross_attention("unet.x", attn)


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
