"""Open-vocabulary detection on tiny random OWLv2, OWL-ViT, Grounding DINO and MM-Grounding-DINO: scores and boxes."""

import numpy as np
import pytest
import torch
import transformers

from pipeline.audit.open_vocabulary import OpenVocabulary
from pipeline.concepts.term import Kind, Term
from tests import tiny_eyes

TERMS = [Term("cat", ("cat", "kitten")), Term("dog")]
MAKE = {
    "OWLv2": lambda folder: tiny_eyes.owl(folder),
    "OWL-ViT": lambda folder: tiny_eyes.owl(folder, "ViT"),
    "Grounding DINO": lambda folder: tiny_eyes.grounding(folder),
    "MM-Grounding-DINO": lambda folder: tiny_eyes.grounding(folder, "MMGroundingDino"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = MAKE[name](tmp_path_factory.mktemp("detection"))
        return made[name]

    return folder


@pytest.mark.parametrize("name", MAKE)
def test_they_keep_what_every_detector_promises_and_boxes_lie_in_the_picture(folders, name):
    detector = tiny_eyes.load("open_vocabulary", model=str(folders(name)), batch=3)
    tiny_eyes.check(detector, TERMS, 1e-5)
    for height, width in tiny_eyes.SIZES:
        boxes = detector.see(tiny_eyes.pictures(4, height, width), TERMS).boxes
        assert boxes.shape == (4, 2, 4)
        assert boxes.dtype == np.float32
        assert (boxes >= 0).all()
        assert (boxes[..., [0, 2]] <= width).all()
        assert (boxes[..., [1, 3]] <= height).all()
        assert (boxes[..., :2] <= boxes[..., 2:]).all()


@pytest.mark.parametrize(("name", "version"), [("OWLv2", "v2"), ("OWL-ViT", "ViT")])
def test_owl_finds_what_transformers_finds_in_the_pixels_of_the_picture(folders, name, version):
    detector = tiny_eyes.load("open_vocabulary", model=str(folders(name)))
    images = tiny_eyes.pictures(2, 30, 50)
    seen = detector.see(images, TERMS)
    network = getattr(transformers, f"Owl{version}ForObjectDetection").from_pretrained(folders(name))
    processor = getattr(transformers, f"Owl{version}Processor").from_pretrained(folders(name), backend="pil")
    texts = [["a photo of a cat", "a photo of a kitten", "a photo of a dog"]] * 2
    read = processor(text=texts, return_tensors="pt", padding="max_length", max_length=24)
    pixels = detector.preparation(images, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        outputs = network(**read, **pixels)
    scores = outputs.logits.sigmoid().amax(1)
    expected = torch.stack([scores[:, :2].amax(1), scores[:, 2]], 1)
    assert np.allclose(seen.scores, expected, atol=1e-5)
    found = processor.image_processor.post_process_object_detection(outputs, 0.0, [(30, 50)] * 2)
    for row in range(2):
        best = found[row]["boxes"][outputs.logits[row, :, 2].argmax()]
        inside = torch.minimum(best.clamp(min=0), torch.tensor([50.0, 30.0, 50.0, 30.0]))
        assert np.allclose(seen.boxes[row, 1], inside, atol=1e-2)


@pytest.mark.parametrize("name", ["Grounding DINO", "MM-Grounding-DINO"])
def test_grounding_dino_finds_what_transformers_finds(folders, name):
    detector = tiny_eyes.load("open_vocabulary", model=str(folders(name)))
    images = tiny_eyes.pictures(2, 30, 50)
    seen = detector.see(images, [Term("cat"), Term("dog")])
    network = detector.network
    words = tiny_eyes.bert_tokenizer()
    processor = transformers.GroundingDinoProcessor(
        tiny_eyes.processor("GroundingDino", size={"shortest_edge": 128, "longest_edge": 192}), words
    )
    inputs = processor(images=list(images), text=[["cat", "dog"]] * 2, return_tensors="pt")
    inputs.update(detector.preparation(images, torch.device("cpu"), torch.float32))
    with torch.no_grad():
        outputs = network(**inputs)
    assert words.convert_ids_to_tokens(inputs["input_ids"][0]) == ["[CLS]", "cat", ".", "dog", ".", "[SEP]"]
    scores = outputs.logits.sigmoid()[..., [1, 3]]
    assert np.allclose(seen.scores, scores.amax(1), atol=1e-5)
    found = processor.post_process_grounded_object_detection(outputs, threshold=0.0, target_sizes=[(30, 50)] * 2)
    for row in range(2):
        best = found[row]["boxes"][scores[row, :, 1].argmax()]
        inside = torch.minimum(best.clamp(min=0), torch.tensor([50.0, 30.0, 50.0, 30.0]))
        assert np.allclose(seen.boxes[row, 1], inside, atol=1e-3)


def test_a_list_longer_than_a_caption_is_asked_in_several(folders):
    detector = tiny_eyes.load("open_vocabulary", model=str(folders("Grounding DINO")))
    assert isinstance(detector, OpenVocabulary)
    names = ["cat", "big red bus", "dog", "kitten", "St. Bernard", "airplane", "AK-47"]
    captions = detector._read(names)
    assert [word for caption in captions for word in caption.places] == names
    assert len(captions) > 1
    assert all(caption.tokens["input_ids"].shape[1] <= 32 for caption in captions)
    words = tiny_eyes.bert_tokenizer()
    for caption in captions:
        for word, places in caption.places.items():
            tokens = words.convert_ids_to_tokens(caption.tokens["input_ids"][0][places])
            assert "".join(tokens).replace("##", "") == "".join(c for c in word.lower() if c not in ". ")
    assert detector.see(tiny_eyes.pictures(2, 40, 40), [Term(name) for name in names]).scores.shape == (2, 7)


def test_it_judges_objects_alone(folders):
    detector = tiny_eyes.load("open_vocabulary", model=str(folders("OWLv2")))
    assert [detector.knows(Term("cat", kind=kind)) for kind in Kind] == [kind is Kind.object for kind in Kind]
    assert detector.threshold(TERMS[0]) == 0.2
    grounding = tiny_eyes.load("open_vocabulary", model=str(folders("Grounding DINO")))
    assert grounding.threshold(TERMS[0]) == 0.3


def test_bad_options_give_one_line(folders, tmp_path):
    model = str(folders("OWLv2"))
    assert "template: 'a cat': expected {} once" in tiny_eyes.one_line("open_vocabulary", model=model, template="a cat")
    clip = str(tiny_eyes.clip(tmp_path))
    assert "is of the type 'clip', which does not find things" in tiny_eyes.one_line("open_vocabulary", model=clip)
    grounding = tiny_eyes.load("open_vocabulary", model=str(folders("Grounding DINO")))
    with pytest.raises(Exception, match=r"cannot read '\.': it is too long, or has no letters"):
        grounding.see(tiny_eyes.pictures(1, 40, 40), [Term(".")])
