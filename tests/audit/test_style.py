"""Style by references, on tiny random CLIP and DINOv2 checkpoints: the scale that they give, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.audit.style import THRESHOLD
from pipeline.concepts.term import Kind, Term
from pipeline.errors import ConfigError
from tests import tiny_eyes


def gray(shade: int, seed: int) -> np.ndarray:
    """A picture in one shade of grey with a little noise."""
    noise = np.random.default_rng(seed).integers(-8, 9, (40, 60, 3))
    return np.clip(shade + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def style(tmp_path):
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(gray(200, i)).save(paths[-1])
    return Term("plain", kind=Kind.style, references=paths)


def test_it_keeps_what_every_detector_promises(clip, tmp_path):
    blots = tiny_eyes.style(tmp_path / "references")
    detector = tiny_eyes.load("style", model=str(clip), batch=3)
    assert detector.knows(blots)
    tiny_eyes.check(detector, [blots])


@pytest.mark.parametrize("make", [tiny_eyes.clip, tiny_eyes.siglip, tiny_eyes.dino])
def test_pictures_in_the_style_of_the_references_are_found_and_others_not(make, tmp_path, style):
    detector = tiny_eyes.load("style", model=str(make(tmp_path / "model")))
    assert detector.knows(style)
    alike = np.stack([gray(200, seed) for seed in range(100, 110)])
    others = tiny_eyes.pictures(10, 40, 60)
    assert (detector.score(alike, [style]) >= THRESHOLD).mean() > 0.7
    assert (detector.score(others, [style]) < THRESHOLD).all()


def test_the_scale_is_that_of_each_reference_left_out(clip, style):
    detector = tiny_eyes.load("style", model=str(clip))
    features = torch.cat([detector._features(np.asarray(Image.open(path))[None]) for path in style.references])
    likeness = []
    for i in range(6):
        cosines = torch.cat([features[:i], features[i + 1 :]]) @ features[i]
        likeness.append(cosines.sort(descending=True).values[:3].mean())
    mean, deviation = torch.stack(likeness).mean(), max(torch.stack(likeness).std(), 0.01)
    image = gray(180, 7)[None]
    own = (detector._features(image) @ features.T).sort(descending=True).values[0, :3].mean()
    expected = torch.distributions.Normal(mean, deviation).cdf(own)
    assert np.allclose(detector.score(image, [style])[0, 0], expected, atol=1e-4)


def test_a_style_head_is_a_matrix_on_the_features_of_the_encoder(clip, style, tmp_path):
    head = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
    save_file({"last_layer_style": head}, tmp_path / "csd.safetensors")
    detector = tiny_eyes.load("style", model=str(clip), projection=str(tmp_path / "csd.safetensors"))
    assert detector.knows(style)
    assert detector._features(gray(200, 0)[None]).shape == (1, 5)
    assert tmp_path / "csd.safetensors" in detector.files()
    save_file({"a": torch.zeros(7, 5)}, tmp_path / "csd.safetensors")
    message = tiny_eyes.one_line("style", model=str(clip), projection=str(tmp_path / "csd.safetensors"))
    assert "takes 7 features, and" in message
    save_file({"a": torch.zeros(7)}, tmp_path / "csd.safetensors")
    message = tiny_eyes.one_line("style", model=str(clip), projection=str(tmp_path / "csd.safetensors"))
    assert "holds a (7,); expected one matrix (features, out)" in message
    message = tiny_eyes.one_line("style", model=str(clip), projection=str(tmp_path / "none.safetensors"))
    assert "none.safetensors: cannot be read as safetensors" in message


def test_styles_without_references_and_other_kinds_are_not_judged(clip, style):
    detector = tiny_eyes.load("style", model=str(clip))
    assert not detector.knows(Term("Van Gogh", kind=Kind.style))
    assert not detector.knows(Term("me", kind=Kind.identity, references=style.references))
    with pytest.raises(ConfigError, match="the concept few has 2 reference pictures; expected 3 or more"):
        detector.knows(Term("few", kind=Kind.style, references=style.references[:2]))


def test_a_reference_that_is_no_picture_is_one_line(clip, style, tmp_path):
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"references: .*0.png: cannot be read as a picture"):
        tiny_eyes.load("style", model=str(clip)).knows(style)
