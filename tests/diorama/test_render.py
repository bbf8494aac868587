"""Renders show each sticker where the scene says, in its style; without the font these tests are skipped."""

import numpy as np
import pytest

from pipeline.diorama import render as module
from pipeline.diorama.render import FONT, render, sticker
from pipeline.diorama.world import BACKGROUNDS, OBJECTS, PLAIN, STYLES, Scene, sample_scene
from pipeline.errors import LacunaError

needs_font = pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji is not installed")


@needs_font
def test_a_scene_is_rendered_the_same_every_time():
    scene = sample_scene(11)
    assert render(scene).shape == (64, 64, 3)
    assert render(scene).dtype == np.uint8
    assert np.array_equal(render(scene), render(scene))


@needs_font
def test_a_sticker_changes_its_box_and_nothing_else():
    empty = Scene(5, (), (), "meadow", PLAIN, "", "")
    full = Scene(5, ("cat",), ((16, 8),), "meadow", PLAIN, "", "")
    changed = (render(empty) != render(full)).any(axis=-1)
    assert changed[8:40, 16:48].mean() > 0.4
    changed[8:40, 16:48] = False
    assert not changed.any()


@needs_font
def test_no_two_stickers_look_alike():
    tiles = np.stack([sticker(name) for name in OBJECTS])
    flat = (tiles[..., :3] * tiles[..., 3:]).reshape(len(OBJECTS), -1)
    distance = np.abs(flat[:, None] - flat[None]).mean(axis=-1) + np.eye(len(OBJECTS))
    assert distance.min() > 0.04


@needs_font
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_styles_are_different_pictures(background):
    pictures = [
        render(Scene(1, ("dog",), ((16, 16),), background, style, "", "")).astype(int) for style in (PLAIN, *STYLES)
    ]
    for i, one in enumerate(pictures):
        for other in pictures[i + 1 :]:
            assert np.abs(one - other).mean() > 2


def test_without_the_font_it_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "FONT", tmp_path / "none.ttf")
    sticker.cache_clear()
    with pytest.raises(LacunaError, match="fonts-noto-color-emoji"):
        sticker("cat")
