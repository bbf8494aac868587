"""Methods and prompts in chunks, with weights: short ones come out as ever, and what a chunk says is acted on in it."""

import numpy as np
import pytest
import torch

from pipeline.concepts.concept import Concept
from pipeline.config.schema import ConceptConfig, Config, ErasureConfig, StepConfig
from pipeline.config.sections.generation import GenerationConfig, LongPrompts, PromptSyntax
from pipeline.erasure.cease.method import CEASE
from pipeline.erasure.cease.options import CEASEOptions
from pipeline.erasure.method import Method, NoOptions, Prompts
from pipeline.erasure.methods.safree import SAFREE, SAFREEOptions
from pipeline.erasure.methods.semantic_surgery import SemanticSurgery, SemanticSurgeryOptions
from pipeline.erasure.recipe import active_methods, recipe_steps
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.generation.text import encode_texts
from pipeline.models.load import Model, load_model
from pipeline.models.reading import Reader, Reading
from tests import tiny, tiny_families

FILLER = "two people talking by a road at night, mountains and a bowl of fruit, the red car, a house by a tree, snow"
LONG = f"{FILLER}, a lion"  # 27 tokens: two chunks of the tiny encoder's 22
BOTH = {"long_prompts": LongPrompts.chunks, "prompt_syntax": PromptSyntax.a1111}
READING = Reading(LongPrompts.chunks, PromptSyntax.a1111)
STEPS = {
    "cease": {"unlisted": False, "context": False},
    "cease that listens": {"unlisted": False, "attention": 0.5},
    "safree": {},
    "safree without its filter": {"svf": False},
    "semantic_surgery": {"beta": 0.3},
    "adavd": {"shift": False},
    "sld": {"warmup": 0},
    "negative_prompt": {},
}


def settings(path: str, *steps: StepConfig, anchor: str = "dog", everywhere: bool = False, **generation) -> Config:
    cat = ConceptConfig(
        name="cat", aliases=["kitten", "tabby cat"], anchor=anchor, implied=["snow"], everywhere=everywhere
    )
    config = tiny.config(path, erasure=ErasureConfig(concepts=[cat], recipe=list(steps)))
    config.generation.guidance = 3.0
    for key, value in generation.items():
        setattr(config.generation, key, value)
    return config


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def path(request: pytest.FixtureRequest) -> str:
    return tiny.path() if request.param == "sd" else tiny_families.path(request.param)


@pytest.fixture(scope="module")
def model(path: str) -> Model:
    return load_model(settings(path).model, torch.device("cpu"))


def draw(config: Config, model: Model, *prompts: str, seeded: int = 100) -> dict[str, np.ndarray]:
    """Pictures by prompt, all of one seed."""
    samples = [tiny.sample(i, prompt, seed=seeded) for i, prompt in enumerate(prompts)]
    drawn = {}
    for batch in Engine(config, model, active_methods(config, model)).generate(samples):
        assert batch.faults == [None] * len(batch.samples)
        drawn |= dict(zip((sample.prompt for sample in batch.samples), batch.images, strict=True))
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_short_prompts_come_out_as_ever_beside_long_ones(path: str, model: Model, name: str) -> None:
    step = StepConfig(method=name.split()[0], options=STEPS[name])
    short = ["a photo of a cat", "the red car", "a tree in the snow", ""]
    plain = draw(settings(path, step), model, *short)
    read = draw(settings(path, step, **BOTH), model, *short, LONG, "a (cat:1.3) BREAK a dog")
    for prompt in short:
        assert np.array_equal(read[prompt], plain[prompt]), prompt


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_concept_in_the_second_chunk_is_acted_on(path: str, model: Model, name: str) -> None:
    asking, step = f"{FILLER}, a cat", StepConfig(method=name.split()[0], options=STEPS[name])
    left, acted = draw(settings(path, **BOTH), model, asking), draw(settings(path, step, **BOTH), model, asking)
    assert not np.array_equal(left[asking], acted[asking])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asking", "other"),
    [
        (f"{FILLER.replace('snow', 'sky')}, a cat and a lion", f"{FILLER.replace('snow', 'sky')}, a dog and a lion"),
        ("a (cat:1.4) by [the] road", "a (dog:1.4) by [the] road"),
        ("a lion BREAK two (kittens) and a tree", "a lion BREAK two (dogs) and a tree"),
        ("a cat \\(a \\[ dog\\)", "a dog \\(a \\[ dog\\)"),
        ("a (tabby:1.4) cat on [the] road", "a (dog:1.4) on [the] road"),
        ("a lion, tabby ((cats)) by a road", "a lion, dogs by a road"),
    ],
)
def test_cease_everywhere_draws_the_anchors_picture_with_its_chunks_and_weights(
    path: str, model: Model, asking: str, other: str
) -> None:
    step = StepConfig(method="cease", options={"unlisted": False, "context": False})
    config, plain = settings(path, step, everywhere=True, **BOTH), settings(path, **BOTH)
    got, wanted = draw(config, model, asking)[asking], draw(plain, model, other)[other]
    assert np.abs(got.astype(int) - wanted).max() <= 1
    assert np.abs(got.astype(int) - draw(plain, model, asking)[asking]).max() > 2


def test_unconcerned_long_and_weighted_prompts_are_left_alone_bit_for_bit(path: str, model: Model) -> None:
    prompts = ["a (tiger:1.3) and a lion", "a road " * 12 + "BREAK a (tree)", "a red car"]
    step = StepConfig(method="cease", options={"unlisted": False, "context": False})
    left, steered = draw(settings(path, **BOTH), model, *prompts), draw(settings(path, step, **BOTH), model, *prompts)
    for prompt in prompts:
        assert np.array_equal(left[prompt], steered[prompt])


def prompts_of(model: Model, *texts: str) -> Prompts:
    reader = Reader(model.family, READING)
    chunks = max(map(reader.chunks_of, texts))
    pairs = [(text, "") for text in texts]
    return encode_texts(model.family, pairs, [], False, reader.filling(chunks).reading).batch(pairs, model.device)


def test_what_says_nothing_comes_near_nothing(model: Model) -> None:
    """An empty prompt, and the empty chunks that fill a prompt up: its scores are those of what it says."""
    method = CEASE(model, (Concept(name="cat", anchor="dog"), Concept(name="tree")), CEASEOptions(), label="cease")
    texts = ["a red car", "", f"{FILLER}, a lion"]
    prompts = prompts_of(model, *texts)
    reader = prompts.reader(model.family)
    assert reader.reading.chunks == 2
    filled, empty, _ = (
        method._whole(text, embeds, reader) for text, embeds in zip(texts, prompts.positive.embeds, strict=True)
    )
    assert empty == [0.0, 0.0]
    alone = prompts_of(model, texts[0])
    said = method._whole(texts[0], alone.positive.embeds[0], alone.reader(model.family))
    assert filled == pytest.approx([max(0.0, score) for score in said], abs=1e-5)


def test_a_weight_is_taken_along_where_a_concept_is_only_implied(model: Model) -> None:
    """What is taken from a weighted token is its weight times what is taken from the token."""
    cat = Concept(name="cat", anchor="dog", implied=("snow",))
    method = CEASE(model, (cat,), CEASEOptions(unlisted=False, context=False), label="cease")
    plain, weighed = prompts_of(model, "a tree in the snow"), prompts_of(model, "a tree in the (snow:1.5)")
    taken = []
    for prompts in (plain, weighed):
        reader = prompts.reader(model.family)
        embeds = prompts.positive.embeds[0]
        taken.append(embeds - method.directions.less(embeds, ["cat"], reader, prompts.texts[0]))
    weights = weighed.reader(model.family).weights(weighed.texts[0])
    assert weights.max() == 1.5
    torch.testing.assert_close(taken[1], weights[:, None] * taken[0], rtol=1e-4, atol=1e-5)
    assert taken[0].abs().max() > 0


def test_semantic_surgery_takes_each_chunk_for_a_text_of_its_own(model: Model) -> None:
    cat = Concept(name="cat", aliases=("kitten",))
    method = SemanticSurgery(model, (cat,), SemanticSurgeryOptions(beta=0.3), label="surgery")
    one, two = "a cat by a road", "a tree at night"
    alone = method.condition(prompts_of(model, one, two))
    both = method.condition(prompts_of(model, f"{one} BREAK {two}"))
    length = model.family.streams[0].length
    for k in range(2):
        torch.testing.assert_close(both.positive.embeds[0, k * length : (k + 1) * length], alone.positive.embeds[k])
    assert both.gates["surgery:cat"].item() == pytest.approx(alone.gates["surgery:cat"].max().item())
    if both.positive.pooled is not None:
        assert alone.positive.pooled is not None
        torch.testing.assert_close(both.positive.pooled[0], alone.positive.pooled[0])


def test_safree_takes_each_chunk_for_a_text_of_its_own(model: Model) -> None:
    method = SAFREE(model, (Concept(name="cat", aliases=("kitten",)),), SAFREEOptions(svf=False), label="safree")
    one, two = "a cat by a road", "two kittens and a tree at night"
    alone = method.condition(prompts_of(model, one, two)).positive.embeds
    both = method.condition(prompts_of(model, f"{one} BREAK {two}")).positive.embeds
    torch.testing.assert_close(both[0], torch.cat([alone[0], alone[1]]), rtol=1e-4, atol=1e-4)


def test_the_concepts_words_come_first_in_a_negative_prompt_and_are_no_syntax(path: str, model: Model) -> None:
    listed = ConceptConfig(name="cat (a kitten)", anchor="dog")
    step = StepConfig(method="negative_prompt")
    config = tiny.config(path, erasure=ErasureConfig(concepts=[listed], recipe=[step]))
    (method,) = active_methods(config, model)
    pairs = [("a tree", "(snow:1.2)")]
    told = method.condition(encode_texts(model.family, pairs, [], True, READING).batch(pairs, model.device))
    assert told.negatives == ("cat \\(a kitten\\), (snow:1.2)",)
    assert told.negative is not None
    wanted = Reader(model.family, READING).encode(told.negatives)
    torch.testing.assert_close(told.negative.embeds, wanted.embeds)
    assert not torch.equal(wanted.embeds, model.family.encode(told.negatives).embeds)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_weight_beyond_all_numbers_spoils_its_own_picture_alone(path: str, model: Model, name: str) -> None:
    step = StepConfig(method=name.split()[0], options=STEPS[name])
    config, prompts = settings(path, step, **BOTH), ["a red car", f"(a cat:{10**40})"]
    engine = Engine(config, model, active_methods(config, model))
    (both,) = engine.generate([tiny.sample(i, prompt) for i, prompt in enumerate(prompts)])
    assert both.faults == [None, "nan"]
    assert np.array_equal(both.images[0], draw(config, model, prompts[0], seeded=100)[prompts[0]])


class Unknowing(Method):
    """Conditions, and says nothing of chunks."""

    Options = NoOptions

    def condition(self, prompts: Prompts) -> Prompts:
        return prompts


@pytest.mark.parametrize(("key", "value"), BOTH.items())
def test_a_method_that_knows_nothing_of_chunks_is_refused_in_a_line(path: str, model: Model, key: str, value) -> None:
    config = settings(path, StepConfig(method="tests.erasure.test_reading:Unknowing"))
    recipe_steps(config, model.family)
    config.generation = GenerationConfig(**{key: value})
    with pytest.raises(
        ConfigError, match=rf"^erasure.recipe\[0\].method: .*Method.chunks.*generation.{key} is {value}"
    ):
        recipe_steps(config, model.family)
