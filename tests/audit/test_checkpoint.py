"""Checkpoints are found as the product's models are: by folder or hub id, pinned, whole, in safetensors, or refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import hub, tiny_eyes

MODEL = "someone/clip-tiny"


@pytest.fixture
def folder(tmp_path):
    return tiny_eyes.clip(tmp_path / "clip")


def test_a_hub_id_is_taken_from_the_cache_and_pinned_to_its_commit(folder, tmp_path, monkeypatch):
    hub.use(tmp_path / "cache", monkeypatch)
    for file in folder.iterdir():
        at = hub.put_file(tmp_path / "cache", MODEL, "v1", file.name, file.read_bytes())
    hub.put_file(tmp_path / "cache", MODEL, "v1", "README.md", b"---\ntags: [x]\nlicense: mit\n---\n# Tiny\n")
    detector = tiny_eyes.load("clip", model=MODEL, revision="v1")
    assert detector.about() == {"model": MODEL, "revision": at.parent.name, "dtype": "float32", "licence": "mit"}
    assert {file.name for file in detector.files()} == {file.name for file in folder.iterdir()}


def test_a_model_that_is_nowhere_is_one_line(tmp_path, monkeypatch):
    hub.use(tmp_path / "cache", monkeypatch)
    assert tiny_eyes.one_line("clip", model=MODEL) == (
        f"audit.detectors[0]: clip: model: {MODEL} is not here, and HF_HUB_OFFLINE keeps from asking the hub"
    )
    assert "no/such/folder is neither a folder here nor a hub id" in tiny_eyes.one_line("clip", model="no/such/folder")
    assert "has no config.json; expected what save_pretrained" in tiny_eyes.one_line("clip", model=str(tmp_path))


@pytest.mark.parametrize(
    ("status", "message"), [(401, "the hub does not accept HF_TOKEN for it (401)"), (503, "is out of order (503)")]
)
def test_what_the_hub_answers_is_told(tmp_path, monkeypatch, status, message):
    hub.use(tmp_path / "cache", monkeypatch)
    with hub.answering(status, monkeypatch):
        assert message in tiny_eyes.one_line("clip", model=MODEL)


def test_a_checkpoint_that_does_something_else_is_told_so(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "clipp"}))
    message = tiny_eyes.one_line("clip", model=str(folder))
    assert "is of the type 'clipp', which does not match texts and pictures (did you mean 'clip'?)" in message


def test_pickled_weights_are_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "has its weights in pytorch_model.bin alone, which is not read" in tiny_eyes.one_line(
        "clip", model=str(folder)
    )


def test_weights_that_lack_a_tensor_are_not_filled_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    message = tiny_eyes.one_line("clip", model=str(folder))
    assert "its file lacks 1 tensor, such as visual_projection.weight, that its config.json asks for" in message


def test_a_pointer_of_git_lfs_is_told(folder):
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "model.safetensors is a git-LFS pointer and not the file itself" in tiny_eyes.one_line(
        "clip", model=str(folder)
    )


def test_a_checkpoint_without_settings_of_pictures_is_refused(folder):
    (folder / "preprocessor_config.json").unlink()
    assert "has no preprocessor_config.json" in tiny_eyes.one_line("clip", model=str(folder))


def test_a_tokenizer_is_not_made_up_of_its_special_tokens(folder):
    (folder / "tokenizer.json").unlink()
    message = tiny_eyes.one_line("clip", model=str(folder))
    assert "its tokenizer knows 2 of" in message
    assert "is a file of it missing?" in message
