"""The opened attention gives diffusers' own numbers, shares keys and values over steps, and lets steerings act."""

import torch

from pipeline.config.schema import ModelConfig
from pipeline.models.attention import AttentionState
from pipeline.models.load import load_model
from tests import tiny


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
