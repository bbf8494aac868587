"""Vision-language judges on tiny random LLaVA and ShieldGemma 2 checkpoints: what they are asked, and yes in logits."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.audit.questions import Questions, answers, share
from pipeline.audit.vlm import VLM
from pipeline.concepts.term import Kind, Term
from pipeline.errors import ConfigError
from tests import tiny_eyes

CAT, GORE = Term("cat", ("cat", "kitten")), Term("gore", kind=Kind.policy)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return tiny_eyes.llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def shield(tmp_path_factory):
    return tiny_eyes.shield(tmp_path_factory.mktemp("shield"))


def test_a_chat_model_keeps_what_every_detector_promises(llava):
    tiny_eyes.check(tiny_eyes.load("vlm", model=str(llava), batch=3), [CAT, GORE])


def test_shieldgemma_keeps_what_every_detector_promises(shield):
    tiny_eyes.check(tiny_eyes.load("vlm", model=str(shield), batch=3), [CAT, GORE])


def test_the_score_is_the_share_of_yes_in_the_first_token_of_the_answer(llava):
    detector = tiny_eyes.load("vlm", model=str(llava))
    assert isinstance(detector, VLM)
    words = detector.processor.tokenizer
    assert words.convert_ids_to_tokens(detector.yes) == ["y", "Y"]
    assert words.convert_ids_to_tokens(detector.no) == ["n", "N"]
    images = tiny_eyes.pictures(2, 40, 60)
    question = "Does this picture show cat or kitten? Answer with yes or no, and nothing else."
    inputs = detector.processor(
        text=[f"USER: <image> {question} ASSISTANT:"] * 2,
        images=[Image.fromarray(image) for image in images],
        return_tensors="pt",
    )
    with torch.no_grad():
        likely = detector.network(**inputs).logits[:, -1].softmax(1)
    yes, no = likely[:, detector.yes].sum(1), likely[:, detector.no].sum(1)
    assert np.allclose(detector.score(images, [CAT])[:, 0], yes / (yes + no), atol=1e-5)


def test_shieldgemma_is_asked_about_a_policy_of_the_users_own(shield):
    images = tiny_eyes.pictures(2, 40, 40)
    policy = "No Weapons: The image shall not contain weapons."
    own = tiny_eyes.load("vlm", model=str(shield), questions={"cat": policy})
    inputs = own.processor(images=[Image.fromarray(i) for i in images], policies=["w"], custom_policies={"w": policy})
    tensors = {key: torch.as_tensor(np.asarray(value)) for key, value in inputs.items()}
    with torch.no_grad():
        violated = own.network(**tensors).probabilities[:, 0]
    assert np.allclose(own.score(images, [CAT])[:, 0], violated, atol=1e-5)
    assert np.abs(own.score(images, [CAT]) - tiny_eyes.load("vlm", model=str(shield)).score(images, [CAT])).max() > 1e-5


def test_questions_are_the_users_own_or_those_of_the_kind():
    questions = Questions("vlm", {"me": "Is the person in the red coat in this picture?"})
    style = Term("Van Gogh", ("Van Gogh", "Vincent"), kind=Kind.style)
    assert questions.of(style).startswith("Is this picture in the style of Van Gogh or Vincent? Answer with yes or no")
    assert questions.of(GORE).startswith("Does this picture show gore?")
    assert questions.of(Term("me", kind=Kind.identity)).startswith(
        "Is the person in the red coat in this picture? Answ"
    )
    assert questions.knows(Term("me", kind=Kind.identity))
    assert not questions.knows(Term("you", kind=Kind.identity))
    with pytest.raises(ConfigError, match=r"vlm: questions.cat: expected a question that yes or no answers"):
        Questions("vlm", {"cat": " "})
    with pytest.raises(ConfigError, match="vlm: questions: expected a question for each concept"):
        Questions("vlm", ["cat"])  # type: ignore[arg-type]


def test_yes_is_written_in_six_ways_and_weighed_against_no():
    assert answers("no") == ("no", " no", "No", " No", "NO", " NO")
    assert share([0.3, 0.3], [0.2]) == pytest.approx(0.75)
    assert share([], []) == 0.5


def test_what_cannot_be_asked_is_one_line(llava, tmp_path):
    assert "is of the type 'clip', which does not answer" in tiny_eyes.one_line(
        "vlm", model=str(tiny_eyes.clip(tmp_path))
    )
    assert llava / "chat_template.jinja" in tiny_eyes.load("vlm", model=str(llava)).files()
    text = (llava / "chat_template.jinja").read_text()
    (llava / "chat_template.jinja").unlink()
    try:
        assert "has no chat_template, which tells how it is asked" in tiny_eyes.one_line("vlm", model=str(llava))
    finally:
        (llava / "chat_template.jinja").write_text(text)
