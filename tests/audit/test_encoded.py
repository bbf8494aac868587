"""CLIP score, aesthetic head and embedding on tiny random CLIP and SigLIP checkpoints, against transformers' own."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.audit.detector import weights_digest
from pipeline.audit.encoder import Encoder
from pipeline.audit.measure import Measure, load_measure
from pipeline.config.schema import DType
from pipeline.config.sections.audit import QualityConfig
from pipeline.errors import ConfigError
from tests import tiny_eyes

CAPTIONS = ["a photo of a cat", "two people by the road", "", "a dog in the snow", "a tree " * 40]


def load(measure: str, **options: object) -> Measure:
    return load_measure(QualityConfig(measure=measure, options=options), "cpu", "audit.quality[0]")


def embeddings(folder, images, captions):
    """Of transformers' own processor and network: float32 (B, D) of pictures and of texts, of length 1."""
    from transformers import AutoModel, AutoProcessor

    network, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder, backend="pil")
    padding = "max_length" if hasattr(network, "logit_bias") else True
    pictures = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
    longest = network.config.text_config.max_position_embeddings
    texts = processor(text=captions, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        found = network(**pictures, **texts)
    return [torch.nn.functional.normalize(e, dim=-1).numpy() for e in (found.image_embeds, found.text_embeds)]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_score_is_100_times_the_cosine_of_picture_and_caption(kind, request):
    folder = request.getfixturevalue(kind)
    images = tiny_eyes.pictures(5, 48, 40)
    pictures, texts = embeddings(folder, images, CAPTIONS)
    found = load("clip", model=str(folder), batch=2).measure(images, CAPTIONS)["clip"]
    assert found.shape == (5,)
    assert np.isnan(found).tolist() == [False, False, True, False, False], "none where there is no caption"
    there = ~np.isnan(found)
    assert np.allclose(found[there], 100 * (pictures * texts).sum(1)[there], atol=0.1)  # resized here, not by Pillow


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_of_pictures_that_need_no_resizing_all_is_as_transformers_has_it(kind, request):
    folder = request.getfixturevalue(kind)
    images = tiny_eyes.pictures(5, tiny_eyes.SIDE, tiny_eyes.SIDE)
    pictures, texts = embeddings(folder, images, CAPTIONS)
    scores = load("clip", model=str(folder), batch=2).measure(images, CAPTIONS)["clip"]
    there = [bool(caption) for caption in CAPTIONS]
    assert np.allclose(scores[there], 100 * (pictures * texts).sum(1)[there], atol=1e-3)
    found = load("embedding", model=str(folder), batch=2).measure(images, CAPTIONS)["embedding"]
    assert np.allclose(found, pictures, atol=5e-4)  # rounded to half precision


def test_a_prefix_stands_before_each_caption(clip):
    images = tiny_eyes.pictures(2, 48, 40)
    prefixed = load("clip", model=str(clip), prefix="a photo of ").measure(images, ["a cat", "a dog"])
    whole = load("clip", model=str(clip)).measure(images, ["a photo of a cat", "a photo of a dog"])
    assert prefixed["clip"].tolist() == whole["clip"].tolist()
    assert load("clip", model=str(clip), prefix="a photo of ").measure(images[:1], [""])["clip"].tolist() != [0]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_an_embedding_is_of_length_1_in_half_precision(kind, request):
    folder = request.getfixturevalue(kind)
    images = tiny_eyes.pictures(5, 40, 64)
    measure = load("embedding", model=str(folder), batch=2)
    found = measure.measure(images, CAPTIONS)["embedding"]
    pictures, _ = embeddings(folder, images, CAPTIONS)
    assert found.dtype == np.float16
    assert found.shape == pictures.shape
    assert measure.columns()["embedding"].list_size == found.shape[1]
    assert np.allclose(np.linalg.norm(found.astype(np.float32), axis=1), 1, atol=2e-3)
    assert np.allclose(found, pictures, atol=4e-3)


@pytest.mark.parametrize("rows", [(1, 16), (16,)])
def test_an_aesthetic_head_is_linear_on_the_embedding(rows, clip, tmp_path):
    weight = torch.linspace(-2, 3, 16)
    save_file({"weight": weight.reshape(rows), "bias": torch.tensor([5.0])}, tmp_path / "head.safetensors")
    images = tiny_eyes.pictures(3, 48, 40)
    measure = load("aesthetic", model=str(clip), head=str(tmp_path / "head.safetensors"))
    encoder = Encoder.shared("any", "cpu", str(clip), None, DType.auto, 32)
    with encoder.looking():
        seen = encoder.pictures(images).numpy()
    assert np.allclose(measure.measure(images, [""] * 3)["aesthetic"], seen @ weight.numpy() + 5, atol=1e-5)
    before = weights_digest(measure, {})
    save_file({"weight": weight.reshape(rows)}, tmp_path / "head.safetensors")
    without = load("aesthetic", model=str(clip), head=str(tmp_path / "head.safetensors"))
    assert np.allclose(without.measure(images, [""] * 3)["aesthetic"], seen @ weight.numpy(), atol=1e-5)
    assert weights_digest(without, {}) != before, "the head is pinned with the checkpoint"


def test_measures_of_one_checkpoint_share_it_and_look_once_at_a_batch(clip, tmp_path):
    save_file({"weight": torch.ones(16)}, tmp_path / "head.safetensors")
    measures = [
        load("clip", model=str(clip)),
        load("aesthetic", model=str(clip), head=str(tmp_path / "head.safetensors")),
        load("embedding", model=str(clip)),
    ]
    encoders = {id(measure.encoder) for measure in measures}
    assert len(encoders) == 1
    looked = []
    measures[0].encoder.network.vision_model.register_forward_hook(lambda *_: looked.append(1))
    images = tiny_eyes.pictures(3, 48, 40)
    for measure in measures:
        measure.measure(images, ["a cat"] * 3)
    assert len(looked) == 1
    measures[2].measure(images.copy(), ["a cat"] * 3)
    assert len(looked) == 2, "of other pictures it looks again"
    assert load("embedding", model=str(clip), batch=2).encoder is not measures[0].encoder


def test_a_picture_alone_and_among_others_is_measured_alike(clip):
    images = tiny_eyes.pictures(6, 48, 40)
    measure = load("embedding", model=str(clip), batch=4)
    together = measure.measure(images, [""] * 6)["embedding"].astype(np.float32)
    alone = [measure.measure(image[None], [""])["embedding"][0].astype(np.float32) for image in images]
    assert np.allclose(together, np.stack(alone), atol=1e-3)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"weight": torch.ones(1, 8)}, r"holds weight \(1, 8\); expected weight \(1, 16\) and bias \(1\)"),
        ({"weight": torch.ones(16), "bias": torch.ones(2)}, r"holds bias \(2,\), weight \(16,\); expected weight"),
        ({"layers.0.weight": torch.ones(16, 16)}, r"holds layers\.0\.weight \(16, 16\); expected weight \(1, 16\)"),
        (None, "cannot be read as safetensors"),
    ],
)
def test_a_head_that_does_not_fit_is_one_line(tensors, reason, clip, tmp_path):
    path = tmp_path / "head.safetensors"
    path.write_bytes(b"no such thing") if tensors is None else save_file(tensors, path)
    with pytest.raises(ConfigError, match=rf"^audit\.quality\[0\]: aesthetic: head: {path}.*{reason}") as caught:
        load("aesthetic", model=str(clip), head=str(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("measure", "options", "reason"),
    [
        ("clip", {}, r"^audit\.quality\[0\]\.options\.model: is missing, and clip needs it$"),
        ("clip", {"modle": "x"}, r"options\.modle: clip has no such option \(did you mean 'model'\?\)"),
        ("clip", {"model": "x", "batch": "many"}, r"options\.batch: Value 'many'"),
        ("aesthetic", {"model": "x"}, r"options\.head: is missing, and aesthetic needs it$"),
        ("embedding", {"model": "/nowhere"}, r"^audit\.quality\[0\]: embedding: model: /nowhere is neither a folder"),
        ("embedding", {"model": "x/y", "batch": 0}, r"^audit\.quality\[0\]: embedding: batch: 0 is no number"),
        ("hash", {"bits": 64}, r"options\.bits: hash has no such option; it has none$"),
    ],
)
def test_bad_options_are_one_line(measure, options, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        load(measure, **options)
    assert len(str(caught.value).splitlines()) == 1


def test_a_checkpoint_that_embeds_no_texts_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is of the type 'dinov2', which does not match texts and pictures"):
        load("embedding", model=str(tiny_eyes.dino(tmp_path / "dino")))
