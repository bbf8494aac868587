"""Training goes on after an interruption as if there had been none, and refuses settings that it does not know."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline.diorama import DIORAMA_PATH
from pipeline.diorama.install import install
from pipeline.diorama.render import FONT
from pipeline.diorama.settings import Settings, Stage, load_settings
from pipeline.diorama.train import main
from pipeline.diorama.train_unet import draw_timesteps, train_unet
from pipeline.errors import ConfigError

pytestmark = pytest.mark.slow


def settings_in(folder, steps):
    for part in ("tokenizer", "text_encoder", "vae"):
        if not (folder / part).exists():
            (folder / part).symlink_to(DIORAMA_PATH / part)
    return Settings(
        folder=str(folder), threads=1, latents=8, decay=0.5, checkpoint_minutes=1000,
        unet=Stage(samples=2 * steps, batch_size=2),
    )  # fmt: skip


@pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji is not installed")
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    train_unet(settings_in(tmp_path / "one", 4))
    # Steps 0 and 1 lie before the decay, where the learning rate does not depend on the total.
    monkeypatch.setattr("pipeline.diorama.train_unet.schedule", lambda step, total, decay_share: 0.5)
    (tmp_path / "three").mkdir()
    train_unet(settings_in(tmp_path / "three", 3))
    train_unet(settings_in(tmp_path / "two", 1))
    train_unet(settings_in(tmp_path / "two", 3))
    states = [torch.load(tmp_path / name / "unet.pt", weights_only=True) for name in ("two", "three")]
    assert states[0]["step"] == states[1]["step"] == 3
    assert states[0]["pictures"] == 6
    for key, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][key]), key
    before = torch.load(tmp_path / "one" / "unet-before-decay.pt", weights_only=True)
    assert before["step"] == 2
    install(tmp_path / "one", tmp_path / "weights")
    assert (tmp_path / "weights" / "model_index.json").exists()
    assert (tmp_path / "weights" / "training.json").exists()


@pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji is not installed")
def test_training_goes_on_from_weights_and_keeps_their_record(tmp_path):
    settings = settings_in(tmp_path, 1)
    settings.start_from = str(DIORAMA_PATH)
    settings.unet.lr = 0.0
    train_unet(settings)
    trained = UNet2DConditionModel.from_pretrained(tmp_path / "unet").state_dict()
    for name, value in UNet2DConditionModel.from_pretrained(DIORAMA_PATH / "unet").state_dict().items():
        assert torch.allclose(trained[name], value, atol=1e-6), name
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["UNet"]["pictures seen"] == 2
    assert facts["before"] == json.loads((DIORAMA_PATH / "training.json").read_text())


def test_timesteps_are_in_range_and_denser_in_the_middle():
    drawn = draw_timesteps(20_000, torch.Generator().manual_seed(0))
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    shares = torch.histc(drawn.float(), bins=4, min=0, max=1000) / len(drawn)
    assert shares[1] + shares[2] > 1.2 * (shares[0] + shares[3])
    assert shares.min() > 0.08


def test_settings_are_checked(tmp_path):
    assert load_settings(["configs/diorama/train.yaml", "unet.lr=0.5"]).unet.lr == 0.5
    with pytest.raises(ConfigError, match="speed"):
        load_settings(["speed=1"])
    with pytest.raises(ConfigError):
        load_settings([str(tmp_path / "none.yaml")])
    with pytest.raises(ConfigError, match="did you mean 'unet'"):
        main(["stages=unte"])
