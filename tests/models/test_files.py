"""Folders as people have them: which files are read and digested, and what is said where the ones that count lack."""

from pathlib import Path

import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.adapters import safetensors_file
from pipeline.models.files import variant_of
from pipeline.models.find import find_model
from tests.models.broken import copy, load, refused

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"
NETWORKS = ("unet", "vae", "text_encoder")


def revision(folder: Path, **options) -> str:
    config = ModelConfig(path=str(folder), **options)
    return find_model(config).revision(config.variant)


def renamed(folder: Path, suffix: str) -> None:
    """Let all weights of the model have this suffix in the place of .safetensors."""
    for part in NETWORKS:
        (path,) = (folder / part).glob("*.safetensors")
        path.rename(path.with_suffix(suffix))


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("model.safetensors", None),
        ("model-00001-of-00002.safetensors", None),
        ("diffusion_pytorch_model.fp16.safetensors", "fp16"),
        ("diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "fp16"),
        ("model-00001-of-00002.fp16.safetensors", "fp16"),
        ("diffusion_pytorch_model.non_ema.bin", "non_ema"),
    ],
)
def test_variants_by_the_names_of_files(name: str, variant: str | None):
    assert variant_of(Path(name)) == variant


def test_a_folder_with_a_variant_alone(tmp_path: Path):
    folder = copy("sd", tmp_path)
    renamed(folder, ".fp16.safetensors")
    assert "has no plain file; give model.variant: fp16, which it has" in refused(folder)
    reason = "has neither a plain file nor one of the variant 'ema'; give model.variant: fp16, which it has"
    assert reason in refused(folder, variant="ema")
    load(folder, variant="fp16")


def test_other_files_whose_names_begin_like_the_variants_do_not_count(tmp_path: Path):
    folder = copy("sd", tmp_path)
    for name in ("diffusion_pytorch_model.fp16.bin", "._diffusion_pytorch_model.fp16.safetensors"):
        (folder / "unet" / name).write_bytes(b"not loaded")
    assert load(folder, variant="fp16").revision == revision(folder, variant="fp16") == revision(folder)


def test_a_folder_with_pickles_alone(tmp_path: Path):
    folder = copy("sd", tmp_path)
    renamed(folder, ".bin")
    reason = "has its weights in model.bin alone, which is not read, because it can run code"
    assert f"text_encoder: {reason}" in refused(folder)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_pointer_of_git_lfs(file: str, tmp_path: Path):
    path = copy("sd", tmp_path) / file
    path.write_text(POINTER)
    expected = f"{path.name} is a git-LFS pointer and not the file itself; fetch it with: git -C {path.parent} lfs pull"
    assert refused(tmp_path / "sd").endswith(expected)


def test_a_lora_that_is_a_pointer_of_git_lfs(tmp_path: Path):
    (tmp_path / "lora.safetensors").write_text(POINTER)
    for path in (tmp_path, tmp_path / "lora.safetensors"):
        with pytest.raises(ConfigError, match=r"lora\.safetensors is a git-LFS pointer"):
            safetensors_file("model.adapters[0].path: x", str(path), None)


def test_what_is_not_loaded_is_no_part_of_the_revision(tmp_path: Path):
    folder = copy("sd", tmp_path)
    before = revision(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    for name in (".DS_Store", "._config.json", "README.md", "diffusion_pytorch_model.bin", "model.onnx"):
        (folder / "unet" / name).write_bytes(b"not loaded")
    (folder / "unet" / ".ipynb_checkpoints").mkdir()
    (folder / "unet" / ".ipynb_checkpoints" / "config.json").write_bytes(b"{}")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(weights.read_bytes())
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"left out")
    assert revision(folder) == before == load(folder).revision
    assert revision(folder, variant="fp16") != before
    for path in (folder / "unet" / "config.json", folder / "tokenizer" / "tokenizer.json"):
        path.write_text(path.read_text() + "\n")
        assert revision(folder) != before
        before = revision(folder)


def test_links_are_followed(tmp_path: Path):
    """As in the hub's cache, whose files are links to blobs, and where the folder is one as well."""
    folder = copy("sd", tmp_path)
    linked = tmp_path / "linked"
    for path in folder.rglob("*"):
        if path.is_file():
            link = linked / "snapshot" / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    (tmp_path / "again").symlink_to(linked / "snapshot")
    plain, through = load(folder), load(tmp_path / "again")
    assert plain.revision == through.revision
    for (name, weight), (_, other) in zip(plain.parameters(), through.parameters(), strict=True):
        assert torch.equal(weight, other), name
