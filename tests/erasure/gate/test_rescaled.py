"""What a gate decides does not depend on how an encoder scales its dimensions, nor on a vector that it adds to all.

Other models than these two, of other seeds, are as good: nothing here was chosen on them.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.concepts.concept import Concept
from pipeline.config.schema import ModelConfig
from pipeline.diorama.lexicon import BACKGROUND_PHRASES, OBJECTS, UNKNOWN
from pipeline.erasure.cease.method import CEASE
from pipeline.erasure.cease.options import CEASEOptions
from pipeline.generation.engine import Engine
from pipeline.models.load import Model, load_model
from pipeline.models.reading import Reader
from tests import tiny
from tests.erasure.rescaled import rescaled

CONCEPTS = (Concept(name="cat"), Concept(name="gun"), Concept(name="beer"))
PLACES = [phrases[0] for phrases in BACKGROUND_PHRASES.values()]
ASKING = (
    "a cat", "two cats", "a kitten", "a tabby", "a kitty", "a gun", "guns", "a pistol", "a handgun", "a revolver",
    "a beer", "a lager", "an ale", "a pint", "a war", "a robbery", "a party",
)  # fmt: skip
OTHERS = [name for name in OBJECTS if name not in ("cat", "gun", "beer", "wine")]  # which a bar implies with a beer
UNCONCERNED = [f"a {word}" for word in (*OTHERS, *UNKNOWN)][:69]
PROMPTS = [f"{text} {PLACES[i % len(PLACES)]}" for i, text in enumerate((*ASKING, *UNCONCERNED))]


def cease(model: Model) -> CEASE:
    return CEASE(model, CONCEPTS, CEASEOptions(), label="cease")


@pytest.fixture(scope="module")
def diorama() -> Model:
    return load_model(ModelConfig(path="diorama"), torch.device("cpu"))


@pytest.fixture(scope="module", params=[20260, 20261])
def other(request, tmp_path_factory) -> Model:
    folder = rescaled(tmp_path_factory.mktemp("rescaled") / "model", request.param)
    return load_model(ModelConfig(path=str(folder)), torch.device("cpu"))


def hits(method: CEASE) -> tuple[list[list[tuple[str, int, int, bool]]], list[list[float]]]:
    """What concerns each prompt, word by word, and how surely: these scores, then those of the whole prompt."""
    reader = Reader(method.model.family)
    whole = [method._whole(text, reader.encode([text]).embeds[0], reader) for text in PROMPTS]
    found = [method._found(text, scores) for text, scores in zip(PROMPTS, whole, strict=True)]
    decided = [[(hit.concept.name, hit.start, hit.stop, hit.meant) for hit in one] for one in found]
    return decided, [[*(hit.score for hit in one), *scores] for one, scores in zip(found, whole, strict=True)]


@pytest.mark.slow
def test_the_same_prompts_are_concerned_by_the_same_words_as_surely(diorama: Model, other: Model):
    decided, scores = hits(cease(diorama))
    assert [bool(found) for found in decided] == [i < len(ASKING) for i in range(len(PROMPTS))]
    decided_there, scores_there = hits(cease(other))
    assert decided_there == decided
    for one, two in zip(scores, scores_there, strict=True):
        assert one == pytest.approx(two, abs=0.005)  # scores and thresholds are rounded, to .001 of a cosine


@pytest.mark.slow
def test_unconcerned_pictures_are_untouched_and_the_others_those_of_the_diorama(diorama: Model, other: Model):
    chosen = [0, 9, 14, 15, 16, 17, 30, 50]  # a word, a synonym, three scenes, and three that ask for nothing
    settings = tiny.config("diorama")
    settings.generation.steps, settings.generation.batch_size = 6, len(chosen)
    samples = [replace(tiny.sample(i, PROMPTS[i], seed=i), width=64, height=64) for i in chosen]

    def drawn(model: Model, *methods: CEASE) -> np.ndarray:
        (batch,) = Engine(settings, model, methods).generate(samples)
        return batch.images.astype(int)

    plain, erased = drawn(other), drawn(other, cease(other))
    assert (plain == erased).all((1, 2, 3)).tolist() == [i >= len(ASKING) for i in chosen]
    # But for rounding: the same with another encoder.
    assert np.abs(plain - drawn(diorama)).mean((1, 2, 3)).max() < 1
    assert np.abs(erased - drawn(diorama, cease(diorama))).mean((1, 2, 3)).max() < 1
