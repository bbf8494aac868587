"""The CLIP detector on tiny random CLIP and SigLIP checkpoints: both heads, texts, sizes, and bad options."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.audit.clip import CLIP
from pipeline.audit.detector import weights_digest
from pipeline.concepts.term import Kind, Term
from tests import tiny_eyes

CAT = Term("cat", ("cat", "kitten"))
TERMS = [CAT, Term("dog"), Term("red car", kind=Kind.policy), Term("Van Gogh", kind=Kind.style)]


def test_softmax_heads_keep_what_every_detector_promises(clip):
    detector = tiny_eyes.load("clip", model=str(clip), batch=3)
    tiny_eyes.check(detector, TERMS)
    assert detector.threshold(CAT) == 0.5


def test_sigmoid_heads_keep_what_every_detector_promises(siglip):
    detector = tiny_eyes.load("clip", model=str(siglip), batch=3)
    tiny_eyes.check(detector, TERMS)
    assert detector.threshold(CAT) == 0.1


def test_a_softmax_score_is_the_probability_that_transformers_gives_of_a_word_against_the_contrast(clip):
    from transformers import AutoProcessor, CLIPModel

    detector = tiny_eyes.load("clip", model=str(clip), templates=["a photo of a {}"], contrast=["a dog", "the beach"])
    images = tiny_eyes.pictures(3, 48, 40)
    network, processor = CLIPModel.from_pretrained(clip), AutoProcessor.from_pretrained(clip, backend="pil")
    texts = ["a photo of a cat", "a photo of a kitten", "a dog", "the beach"]
    inputs = processor(text=texts, images=[Image.fromarray(i) for i in images], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = network(**inputs).logits_per_image
    words = [logits[:, [i, 2, 3]].softmax(1)[:, 0] for i in (0, 1)]
    assert np.allclose(detector.score(images, [CAT])[:, 0], torch.stack(words).amax(0), atol=2e-3)


def test_a_sigmoid_score_is_the_probability_that_transformers_gives_without_contrast(siglip):
    from transformers import AutoImageProcessor, SiglipModel

    from tests import tiny

    detector = tiny_eyes.load("clip", model=str(siglip), templates=["a photo of a {}"], contrast=["a dog"])
    images = tiny_eyes.pictures(3, 48, 40)
    network = SiglipModel.from_pretrained(siglip)
    texts = ["a photo of a cat", "a photo of a kitten"]
    read = tiny.tokenizer()(texts, padding="max_length", max_length=tiny.LENGTH, return_tensors="pt")
    pixels = AutoImageProcessor.from_pretrained(siglip, backend="pil")(list(images), return_tensors="pt").pixel_values
    with torch.no_grad():
        logits = network(pixel_values=pixels, **read).logits_per_image
    assert np.allclose(detector.score(images, [CAT])[:, 0], logits.sigmoid().amax(1), atol=2e-3)


def test_scores_of_a_term_do_not_depend_on_the_others(clip):
    detector = tiny_eyes.load("clip", model=str(clip))
    images = tiny_eyes.pictures(2, 40, 40)
    assert (detector.score(images, TERMS)[:, :1] == detector.score(images, [CAT])).all()


def test_contrast_never_names_the_concept_and_takes_its_neighbours(clip):
    detector = tiny_eyes.load("clip", model=str(clip), neighbours={"vehicle": ["a photo of a ship", "two vehicles"]})
    assert isinstance(detector, CLIP)
    texts = detector.contrast_of(Term("vehicle"))
    assert "a photo of a ship" in texts
    assert "a photo of food" in texts
    assert not {"a photo of a vehicle", "two vehicles"} & set(texts)
    assert "an oil painting" in detector.contrast_of(Term("Van Gogh", kind=Kind.style))


def test_an_identity_is_not_judged_by_its_name(clip):
    detector = tiny_eyes.load("clip", model=str(clip))
    assert not detector.knows(Term("my face", kind=Kind.identity))
    assert all(detector.knows(term) for term in TERMS)


def test_what_is_pinned_are_the_bytes_of_the_folder_and_what_it_tells_of_itself(clip):
    detector = tiny_eyes.load("clip", model=str(clip), dtype="bfloat16")
    assert detector.about() == {
        "model": clip.name, "revision": "", "dtype": "bfloat16", "licence": "not stated beside its weights"
    }  # fmt: skip
    assert "model.safetensors" in {file.name for file in detector.files()}
    assert {"tokenizer.json", "preprocessor_config.json"} <= {file.name for file in detector.files()}
    assert weights_digest(detector, {}).startswith("sha256:")
    scores = detector.score(tiny_eyes.pictures(2, 40, 40), TERMS)
    whole = tiny_eyes.load("clip", model=str(clip)).score(tiny_eyes.pictures(2, 40, 40), TERMS)
    assert np.abs(scores - whole).max() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": ["a photo"]}, "clip: templates: 'a photo': expected {} once, in the place of the word"),
        ({"templates": []}, "clip: templates: is empty; leave it out for the built-in ones"),
        ({"contrast": []}, "clip: contrast: is empty; leave it out for the built-in ones"),
        ({"neighbours": ["dog"]}, "clip: neighbours: expected a list of texts for each concept"),
        ({"neighbours": {"cat": "dog"}}, "clip: neighbours.cat: expected a list of texts"),
        ({"batch": 0}, "clip: batch: 0 is no number of pictures; expected 1 or more"),
        ({"revision": "main"}, "is a local folder, which has no revisions"),
        ({"template": ["{}"]}, "clip has no such option (did you mean 'templates'?)"),
        ({"dtype": "flot16"}, "flot16"),
    ],
)
def test_bad_options_give_one_line(clip, options, message):
    assert message in tiny_eyes.one_line("clip", **{"model": str(clip), **options})
