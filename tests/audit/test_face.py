"""The eye for faces knows a person by reference pictures: tried on the one face that the photographs have."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from pipeline.audit.face import THRESHOLD, Face
from pipeline.concepts.term import Kind, Term
from pipeline.errors import ConfigError
from tests.photographs import PHOTOGRAPHS, photograph, portrait

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("dlib", "face_recognition_models"))), reason="without the extra face"
)


@pytest.fixture(scope="module")
def eye() -> Face:
    return Face("cpu")


@pytest.fixture
def astronaut(tmp_path) -> Term:
    return Term("astronaut", kind=Kind.identity, references=[portrait(tmp_path)])


def test_a_person_is_found_by_another_picture_and_where_she_is(eye, astronaut):
    assert eye.knows(astronaut)
    image = photograph("face")
    sight = eye.see(image[None], [astronaut])
    assert sight.scores[0, 0] > THRESHOLD
    x0, y0, x1, y1 = sight.boxes[0, 0]
    assert 150 < x0 < 224 < x1 < 300  # her face is about (224, 120)
    assert 40 < y0 < 120 < y1 < 200
    assert np.array_equal(sight.scores, eye.score(image[None], [astronaut]))


def test_where_no_face_is_none_is_seen(eye, astronaut):
    assert eye.knows(astronaut)
    for name in ("cat", "coffee", "rocket", "flower", "temple"):
        sight = eye.see(photograph(name)[None], [astronaut])
        assert sight.scores[0, 0] < THRESHOLD


def test_it_judges_identities_with_references_alone(eye, astronaut):
    assert not eye.knows(Term("astronaut", kind=Kind.identity))
    assert not eye.knows(Term("astronaut", references=astronaut.references))


def test_references_without_one_face_are_refused_in_a_line(eye, tmp_path):
    face = photograph("face")[20:220, 130:330]
    Image.fromarray(np.concatenate([face, face], axis=1)).save(tmp_path / "two.png")
    (tmp_path / "text.png").write_text("no picture")
    for path, message in (
        (PHOTOGRAPHS["flower"], "0 faces are found in it; expected one"),
        (tmp_path / "two.png", "2 faces are found in it; expected one"),
        (tmp_path / "text.png", "is no picture that can be read"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            eye.knows(Term("x", kind=Kind.identity, references=[path]))
        assert str(path) in str(caught.value)


def test_a_wrong_option_is_refused():
    with pytest.raises(ConfigError, match=r"options.upsample: is 5; expected 0, 1 or 2"):
        Face("cpu", upsample=5)
