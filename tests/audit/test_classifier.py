"""Classifiers of transformers as detectors, on tiny random ViTs: labels, both heads, and what cannot be."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pipeline.audit.imagenet import classes
from pipeline.concepts.term import Kind, Term
from tests import tiny_eyes

CAT, DOG = Term("cat"), Term("dog")


@pytest.fixture
def folder(tmp_path):
    return tiny_eyes.classifier(tmp_path / "vit")


def test_it_keeps_what_every_detector_promises(folder):
    detector = tiny_eyes.load("classifier", model=str(folder), batch=3)
    tiny_eyes.check(detector, [CAT, DOG])
    assert detector.threshold(CAT) == 0.5


def likely(folder, detector, images) -> torch.Tensor:
    network = transformers.ViTForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        return network(**detector.preparation(images, torch.device("cpu"), torch.float32)).logits


def test_probabilities_of_exclusive_labels_are_added(folder):
    detector = tiny_eyes.load("classifier", model=str(folder))
    images = tiny_eyes.pictures(4, 40, 60)
    expected = likely(folder, detector, images).softmax(1)
    scores = detector.score(images, [CAT, DOG])
    assert np.allclose(scores[:, 0], expected[:, :2].sum(1), atol=1e-5)
    assert np.allclose(scores[:, 1], expected[:, 2], atol=1e-5)


def test_of_labels_that_do_not_exclude_each_other_the_likeliest_counts(tmp_path):
    folder = tiny_eyes.classifier(tmp_path, problem_type="multi_label_classification")
    detector = tiny_eyes.load("classifier", model=str(folder))
    images = tiny_eyes.pictures(4, 40, 60)
    expected = likely(folder, detector, images).sigmoid()
    assert np.allclose(detector.score(images, [CAT])[:, 0], expected[:, :2].amax(1), atol=1e-5)


def test_it_knows_what_labels_stand_for_and_a_table_decides(folder):
    detector = tiny_eyes.load("classifier", model=str(folder), labels={"pet": ["dog", "tabby"]})
    assert [detector.knows(Term(name)) for name in ("cat", "feline", "dogs", "pet", "church")] == [True] * 4 + [False]
    assert not detector.knows(Term("cat", kind=Kind.identity))
    assert detector.labels.texts(Term("pet")) == ["tabby, tabby cat", "dog"]
    message = tiny_eyes.one_line("classifier", model=str(folder), labels={"cat": ["tabi cat"]})
    assert "classifier.labels.cat: there is no label 'tabi cat' among 3 (did you mean 'tabby cat'?)" in message


def test_a_classifier_of_imagenet_has_its_ids(tmp_path):
    texts = [label.text for label in classes()]
    texts[5] = "a fish that has another name here"
    detector = tiny_eyes.load("classifier", model=str(tiny_eyes.classifier(tmp_path, texts)))
    assert [label.id for label in detector.labels.labels] == [label.id for label in classes()]
    assert detector.labels.labels[5].text == texts[5]
    assert detector.knows(Term("bow"))
    assert "senses: labels called 'crane' mean several things" in str(_refusal(detector, Term("crane")))


def _refusal(detector, term):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        detector.knows(term)
    return caught.value


def test_labels_without_names_have_to_be_given(folder):
    settings = json.loads((folder / "config.json").read_text())
    settings["id2label"] = {str(i): f"LABEL_{i}" for i in range(3)}
    (folder / "config.json").write_text(json.dumps(settings))
    assert "its config.json names no labels (id2label); give them" in tiny_eyes.one_line(
        "classifier", model=str(folder)
    )
    detector = tiny_eyes.load("classifier", model=str(folder), labels={"nudity": ["LABEL_1"]})
    assert detector.knows(Term("nudity"))


def test_a_network_whose_head_is_not_in_the_file_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, folder / "model.safetensors")
    assert "its file lacks 2 tensors" in tiny_eyes.one_line("classifier", model=str(folder))


def test_what_is_no_classifier_is_told_so(tmp_path):
    message = tiny_eyes.one_line("classifier", model=str(tiny_eyes.owl(tmp_path)))
    assert "is of the type 'owlv2', which does not classify pictures" in message
    assert "expected one of those of transformers, such as" in message
    assert len(message) < 300
