"""AdaVD against the authors' code, its linear algebra written out, and what of a batch it changes."""

import pytest
import torch
from safetensors.torch import load_file

from pipeline.concepts.concept import Concept
from pipeline.config.schema import StepConfig
from pipeline.erasure.method import Sampling
from pipeline.erasure.methods.adavd import MOST, AdaVD, AdaVDOptions, Targets, gated, shifted
from pipeline.errors import ConfigError
from pipeline.generation.sampler import Sampler
from pipeline.generation.text import encode_texts
from pipeline.models.attention import AttentionState
from pipeline.models.layers import merge_heads, split_heads
from tests.erasure import tiny_oracle
from tests.erasure.steering import BATCH, draw, engine

SOFT = {"a": 10.0, "b": 0.5}


@pytest.mark.parametrize(
    ("case", "names", "options"),
    [
        ("single", ["cat"], {}),
        ("soft", ["cat"], SOFT),
        ("plain", ["cat"], {"shift": False}),
        ("two", ["cat", "house"], SOFT),
    ],
)
@pytest.mark.parametrize(("i", "prompt"), enumerate(["a photo of a cat and a dog on the beach", "the red car"]))
@pytest.mark.usefixtures("recorded_noise")
def test_draws_what_the_authors_code_draws(case, names, options, i, prompt):
    """Whole runs of 3 DDIM steps at guidance 7.5, in float64 on both sides. Pixels, about -3 to 3, agree to 1e-9 (the
    largest seen: 8e-13); from those of the unerased model they differ by 9e-5 (the car, default shift) or more."""
    model = tiny_oracle.double_model()
    method = AdaVD(model, [Concept(name=name) for name in names], AdaVDOptions(**options), label="adavd")
    prompts = encode_texts(model.family, [(prompt, "")], (), guided=True).batch([(prompt, "")], model.device)
    pixels, _ = Sampler(model, [method]).sample(prompts, [100 + i], 8, 8, steps=3, guidance=7.5)
    expected = load_file(tiny_oracle.FIXTURES / "adavd.safetensors")[f"{case}.{i}"]
    assert (pixels[0] - expected).abs().max() < 1e-9
    plain, _ = Sampler(model, []).sample(prompts, [100 + i], 8, 8, steps=3, guidance=7.5)
    assert (pixels - plain).abs().max() > 5e-5


def targets(concepts: int, words: int, width: int = 12) -> Targets:
    """Values of *words* words for each concept, drawn at random."""
    values = torch.randn(concepts * words, width, generator=torch.Generator().manual_seed(1))
    places = torch.arange(concepts * words).view(concepts, words)
    return Targets(values, values @ values.T, places, values[:0], torch.zeros_like(values))


def test_without_shift_nothing_of_any_concept_is_left():
    v = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    own = targets(3, 1)
    left = v - shifted(v, torch.zeros_like(v), own, AdaVDOptions(shift=False))[0]
    assert (left @ own.values.T).abs().max() < 1e-4
    assert ((v - left) - (v - left) @ torch.linalg.pinv(own.values) @ own.values).abs().max() < 1e-4


def test_concepts_of_one_value_are_taken_once():
    v = torch.randn(1, 4, 12, generator=torch.Generator().manual_seed(0))
    one = targets(1, 1)
    places = torch.arange(2)[:, None]
    same = Targets(one.values.repeat(2, 1), torch.ones(2, 2) * one.gram, places, one.kept, one.stand_in)
    options = AdaVDOptions(shift=False)
    once, twice = (shifted(v, torch.zeros_like(v), t, options)[0] for t in (one, same))
    assert (once - twice).abs().max() < 1e-3


def test_each_token_is_compared_with_the_word_most_like_it():
    own = targets(1, 3)
    v = 2.0 * own.values[None]  # three tokens, each a word
    taken, _, cosines = shifted(v, torch.zeros_like(v), own, AdaVDOptions(shift=False))
    assert (taken - v).abs().max() < 1e-4
    assert (cosines - 1).abs().max() < 1e-5


@pytest.mark.parametrize("decompose", ["shifted", "gated"])
def test_of_many_concepts_a_token_is_decomposed_among_those_most_like_it(decompose):
    """As if each token had a list of its own, of those alone; how like the others are is told all the same."""
    many, width = targets(MOST + 8, 2, width=64), 64
    v = torch.randn(1, 5, width, generator=torch.Generator().manual_seed(0))
    v[0, 0] += 3 * many.values[7]
    options = AdaVDOptions(shift=False, tau=0.2)

    def act(values: torch.Tensor, own: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        if decompose == "gated":
            return gated(values, own, options)
        taken, _, likeness = shifted(values, torch.zeros_like(values), own, options)
        return taken, likeness

    taken, likeness = act(v, many)
    assert likeness.shape == (1, 5, MOST + 8)
    for token in range(5):
        nearest = likeness[0, token].topk(MOST).indices
        own = Targets(many.values, many.gram, many.words[nearest], many.kept, many.stand_in)
        alone, its_likeness = act(v[:, token : token + 1], own)
        assert (alone[0, 0] - taken[0, token]).abs().max() < 1e-5
        assert torch.allclose(its_likeness[0, 0], likeness[0, token, nearest], atol=1e-6)  # cosines in float32
    assert likeness[0, 0].argmax() == 3


def test_a_concept_of_fewer_words_than_another(model):
    """Its first word fills its row, and is compared no differently from one in a list where all have as many."""
    attach = model.family.attach(AttentionState())[0]
    cat, house = Concept(name="cat"), Concept(name="house", aliases=("home", "cottage"))
    both, alone = (AdaVD(model, c, AdaVDOptions(), label="adavd").targets(attach) for c in ([cat, house], [cat]))
    assert both.words.tolist() == [[0, 0, 0], [1, 2, 3]]
    v = torch.randn(1, 4, both.values.shape[1], generator=torch.Generator().manual_seed(0))
    seen = [shifted(v, torch.zeros_like(v), t, AdaVDOptions())[2][..., 0] for t in (both, alone)]
    assert torch.allclose(*seen, atol=1e-6)  # cosines in float32, in products of other shapes


def test_gated_projection_replaces_above_tau_and_leaves_the_rest_alone():
    t, kept, anchor = torch.eye(6)[:3]
    own = Targets(t[None], torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.long), kept[None], anchor[None])
    v = torch.tensor([[3.0, 4.0, 0.0, 0.3, 0.0, 0.0], [0.2, 4.0, 0.0, 5.0, 0.0, 0.0]])[None]
    taken, r = gated(v, own, AdaVDOptions(tau=0.5, replace=0.5))
    assert torch.equal(v[0, 1] - taken[0, 1], v[0, 1])
    assert (v[0, 0] - taken[0, 0] - torch.tensor([0.0, 4.0, 1.5, 0.3, 0.0, 0.0])).abs().max() < 1e-5
    assert r.flatten().tolist() == pytest.approx([3 / (9 + 0.09) ** 0.5, 0.2 / (0.04 + 25) ** 0.5], abs=1e-5)


def changed_values(model, options: AdaVDOptions) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """Return, by layer, which rows and tokens of the values change ``(2 B, T)``; and the scores ``(layers, B)``."""
    pairs = [(prompt, "") for prompt in BATCH]
    method = AdaVD(
        model, [Concept(name="cat", aliases=("kitten",), anchor="dog", preserve=("tiger",))], options, label="adavd"
    )
    prompts = encode_texts(model.family, pairs, (), guided=True).batch(pairs, model.device)
    steering = method.steer(prompts, Sampling((4, 8, 8), 3, 5.0))
    embeds = torch.cat([prompts.negative.embeds, prompts.positive.embeds])
    changed = {}
    for layer in model.family.attach(AttentionState()):
        key, value = (split_heads(f(embeds), layer.heads) for f in (layer.module.to_k, layer.module.to_v))
        new_key, new_value = steering.text(layer, key, value)
        assert new_key is key
        changed[layer.index] = (merge_heads(new_value) != merge_heads(value)).any(-1)
    return changed, torch.stack([scores[:, 0] for scores in steering.scores.values()])


def test_values_of_every_layer_and_never_the_start_token(model):
    changed, _ = changed_values(model, AdaVDOptions(shift=False))
    assert len(changed) == len([n for n, _ in model.pipe.unet.named_modules() if n.endswith("attn2")])
    assert all(not rows[:, 0].any() and rows[:, 1:].all() for rows in changed.values())


def test_positive_branch_alone(model):
    for rows in changed_values(model, AdaVDOptions(shift=False, branches="positive"))[0].values():
        assert not rows[: len(BATCH)].any()
        assert rows[len(BATCH) :, 1:].all()


def test_gated_rows_are_bit_identical_and_the_gate_is_in_the_manifest(model):
    scores = changed_values(model, AdaVDOptions(projection="gated"))[1]  # r does not depend on tau
    highest = scores.amax(0).sort().values
    options = {"projection": "gated", "tau": highest[1:3].mean().item()}  # two of four prompts reach it in some layer
    plain, steered = draw(engine()), draw(engine(StepConfig(method="adavd", options=options)))
    same = [bool((a == b).all()) for a, b in zip(plain.images, steered.images, strict=True)]
    assert same == (scores.amax(0) < options["tau"]).tolist()
    assert steered.gates["adavd:cat"] == pytest.approx(scores.mean(0).numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": "positiv"}, "did you mean 'positive'"),
        ({"projection": "hard"}, "expected shifted or gated"),
        ({"b": 1.5}, "compared with a cosine"),
        ({"a": 0.0}, "more than 0"),
        ({"replace": -1.0}, "0 or more"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        AdaVDOptions(**options)


def test_neighbours_of_one_value_are_preserved_as_one(model):
    """ "tiger" twice, in the eyes of a tokenizer that knows no capitals: another direction must not go with them."""
    once, twice = (
        AdaVD(model, [Concept(name="cat", preserve=kept)], AdaVDOptions(projection="gated"), label="adavd").targets(
            model.family.attach(AttentionState())[0]
        )
        for kept in (("tiger",), ("tiger", "Tiger"))
    )
    assert once.kept.shape == twice.kept.shape
    assert (once.values - twice.values).abs().max() < 1e-5
