"""CEASE on joint attention acts on the words that it acts on elsewhere; what only implies a concept is acted on too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.config.schema import ConceptConfig, StepConfig
from pipeline.erasure.gate.encoder import THINGS
from pipeline.erasure.method import Method, NoOptions, Prompts, Sampling
from pipeline.erasure.recipe import active_methods
from pipeline.generation.engine import Engine
from pipeline.generation.text import encode_texts
from pipeline.models.load import load_model
from pipeline.workshop.explain import draw as explained
from tests import tiny
from tests.erasure.families import apart, config, draw, load

# The words are those that the tiny tokenizers know.
CAT = ConceptConfig(
    name="cat", aliases=["kitten"], anchor="dog", preserve=["tiger"], keep=["cat on the beach"], proven=["lion"],
    implied=["snow"], ignore=["wolf"],
)  # fmt: skip
OPEN = ["a cat at night", "two kittens", "a CAT, a tree", "black_cat", "a lion", "a tree in the snow", "2cats and 1dog"]
SHUT = ["a tiger", "a cat on the beach", "a wolf", "a red car", "the mountains", "category"]
JOINT = ("sd3", "sd3-without-t5", "flux", "schnell")
NAMED, IMPLIED, BOTH, OTHER = "a cat by a tree", "a tree in the snow", "a cat in the snow", "a red car"


def engine(family: str, concept: ConceptConfig = CAT, **options: float) -> Engine:
    name = "cease_joint" if family in JOINT else "cease"
    listed = {"unlisted": False} if family in JOINT else {"unlisted": False, "context": False}
    settings = config("sdxl" if family == "sd" else family, concept=concept)
    if family == "sd":
        settings.model = tiny.config(tiny.path()).model
    settings.erasure.recipe = [StepConfig(method=name, options={**listed, **options})]
    model = load_model(settings.model, torch.device("cpu"))
    return Engine(settings, model, active_methods(settings, model))


@pytest.mark.parametrize("family", ["sd", "sdxl", *JOINT])
def test_the_same_words_open_the_gate_on_every_architecture(family: str) -> None:
    (method,) = engine(family).methods
    texts = OPEN + SHUT
    drawn = encode_texts(method.model.family, [(text, "") for text in texts], [], guided=False)
    prompts = drawn.batch([(text, "") for text in texts], method.model.device)
    (gate,) = [gates for name, gates in method_gates(method, prompts).items() if name.endswith(":cat")]
    assert [bool(score == 1) for score in gate] == [True] * len(OPEN) + [False] * len(SHUT)


def method_gates(method: Method, prompts: Prompts) -> dict[str, torch.Tensor]:

    steering = method.steer(prompts, Sampling(method.model.family.latent_shape(32, 32), 3, 3.5))
    assert steering is not None
    return steering.gates


@pytest.mark.parametrize("family", JOINT)
def test_unconcerned_pictures_are_bit_identical_beside_named_and_implied_ones(family: str) -> None:
    prompts = [NAMED, OTHER, IMPLIED, "a wolf and a tiger"]
    plain, steered = draw(Engine(config(family), load(family), ()), prompts), draw(engine(family), prompts)
    for i, concerned in enumerate([True, False, True, False]):
        assert np.array_equal(plain.images[i], steered.images[i]) is not concerned


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_the_place_of_what_is_implied_has_a_threshold_of_its_own(family: str) -> None:
    def share(prompt: str, **options: float) -> float:
        acting = engine(family, **options)
        *_, (_, name, mask) = explained(acting.config, acting.model, acting.methods, prompt).masks
        assert name == "switches"
        return float(mask.mean())

    assert share(IMPLIED, implied_threshold=0.0) == 1
    assert 0 < share(IMPLIED, implied_threshold=1.0) < 0.5
    assert share(NAMED, implied_threshold=0.0) == share(NAMED, implied_threshold=1.0) < 1


class Without(Method):
    """Tells a prompt without the concept, by the formulae of ``cease/alternatives.py``; nothing is steered."""

    Options = NoOptions

    def ends(self, word: str) -> list[torch.Tensor]:
        """The last token, the end and the mean padding of "a WORD" in each text encoder that attention hears."""
        found, embeds = [], self.model.family.encode([f"a {word}"]).embeds[0]
        for stream in self.model.family.streams:
            last = stream.offset + len(stream.tokenizer(f"a {word}").input_ids) - 1
            padding = embeds[last + 1 : stream.offset + stream.length].mean(0)
            found.append(torch.stack([embeds[last - 1], embeds[last], padding]))
        return found

    def condition(self, prompts: Prompts) -> Prompts:
        family, texts = self.model.family, [text.replace("cat", "dog") for text in prompts.texts]
        told = family.encode(texts)
        embeds, pooled = told.embeds.clone(), told.pooled.clone()
        pooled_anchor = family.summary("a dog")
        apart = torch.stack([family.summary(f"a {thing}") for thing in THINGS]).std(0)
        u = torch.nn.functional.normalize((family.summary("a cat") - pooled_anchor) / apart, dim=0)
        spreads = [torch.stack(ends).std(0) for ends in zip(*(self.ends(thing) for thing in THINGS), strict=True)]
        for i, text in enumerate(texts):
            if "snow" not in text:
                continue
            pooled[i] -= (((pooled[i] - pooled_anchor) / apart) @ u).relu() * u * apart
            ends = zip(family.streams, self.ends("cat"), self.ends("dog"), spreads, strict=True)
            for stream, concept, anchor, spread in ends:
                last = stream.offset + len(stream.tokenizer(text).input_ids) - 1
                for row in range(stream.first, stream.offset + stream.length):
                    kind = 0 if row < last else 1 if row == last else 2
                    own = spread[kind]
                    way = torch.nn.functional.normalize((concept[kind] - anchor[kind]) / own, dim=0)
                    embeds[i, row] -= (((embeds[i, row] - anchor[kind]) / own) @ way).relu() * way * own
        return prompts.changed(positive=replace(told, embeds=embeds, pooled=pooled))


@pytest.mark.parametrize("family", JOINT)
def test_switched_everywhere_what_is_implied_is_the_picture_of_a_prompt_told_without_it(family: str) -> None:
    """Tokens of every text encoder and the pooled vector, for words that mean the concept, imply it, or both."""
    prompts = [NAMED, IMPLIED, BOTH, OTHER]
    model = load(family)
    without = Engine(config(family), model, [Without(model, (), NoOptions(), label="without")])
    switched = draw(engine(family, replace(CAT, everywhere=True)), prompts)
    wanted, plain = draw(without, prompts), draw(Engine(config(family), load(family), ()), prompts)
    for i in range(3):
        assert apart(switched.images[i], wanted.images[i]) <= 2, prompts[i]
        assert apart(switched.images[i], plain.images[i]) > 2, prompts[i]
    assert np.array_equal(switched.images[3], plain.images[3])


def test_it_tells_what_is_meant_and_what_is_implied() -> None:
    (method,) = engine("sd3").methods
    assert method.explain(BOTH) == [
        "“cat” means cat (1.00)",
        "“snow” implies cat (1.00)",
        "inside its place the picture listens to “a dog in the snow”",
        "inside its place the direction of cat is taken from the prompt's embeddings",
    ]
    assert method.explain(OTHER)[0].startswith("no word comes near enough")
