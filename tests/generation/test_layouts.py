"""Of every layout of a checkpoint that loads, our loop draws what diffusers' own pipeline draws of it: 0 difference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderTiny, DiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, BertTokenizer

from pipeline.config.schema import ModelConfig
from pipeline.generation.engine import Engine
from pipeline.models.load import load_model
from tests import tiny, tiny_families
from tests.models.broken import copy, part

PROMPTS = ["a cat on the beach", "a red car"]


def sharded(folder: Path) -> None:
    pipe = DiffusionPipeline.from_pretrained(folder)
    for name in ("unet", "text_encoder"):
        for path in (folder / name).glob("*.safetensors"):
            path.unlink()
        getattr(pipe, name).save_pretrained(folder / name, max_shard_size="100KB")
        assert len(list((folder / name).glob("*.safetensors"))) > 1


def variant(folder: Path) -> None:
    for path in folder.glob("*/*.safetensors"):
        if path.parent.name != "vae":  # of which there is a plain file alone
            path.rename(path.with_suffix(".fp16.safetensors"))


def fp8(folder: Path) -> None:
    (path,) = (folder / "unet").glob("*.safetensors")
    stored = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in load_file(path).items()}
    save_file(stored, path, {"format": "pt"})


def t5(folder: Path) -> None:
    part(folder, "text_encoder", tiny_families.t5(128))
    part(folder, "tokenizer", tiny_families.t5_tokenizer())


def bert(folder: Path) -> None:
    words = sorted({word for sentence in tiny.SENTENCES for word in sentence.replace(",", "").split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate([*special, *words])}, model_max_length=20)
    settings = BertConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=20,
    )  # fmt: skip
    part(folder, "text_encoder", BertModel(settings))
    part(folder, "tokenizer", tokenizer)


def tiny_vae(folder: Path) -> None:
    decoder = AutoencoderTiny(
        encoder_block_out_channels=(16,) * 3, decoder_block_out_channels=(16,) * 3, num_encoder_blocks=(1,) * 3,
        num_decoder_blocks=(1,) * 3, latent_channels=4,
    )  # fmt: skip
    part(folder, "vae", decoder)


def asymmetric_vae(folder: Path) -> None:
    decoder = AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, down_block_out_channels=(16,) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, up_block_out_channels=(32,) * 3, latent_channels=4, norm_num_groups=8,
    )  # fmt: skip
    part(folder, "vae", decoder)


def links(folder: Path) -> None:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for i, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        path.rename(blobs / str(i))
        path.symlink_to(blobs / str(i))


LAYOUTS: list[tuple[Callable[[Path], None], dict[str, Any]]] = [
    (sharded, {}),
    (variant, {"variant": "fp16"}),
    (fp8, {}),
    (t5, {}),
    (bert, {}),
    (tiny_vae, {}),
    (asymmetric_vae, {}),
    (links, {}),
]


@pytest.mark.parametrize(("change", "options"), LAYOUTS, ids=[change.__name__ for change, _ in LAYOUTS])
def test_diffusers_draws_the_same(change: Callable[[Path], None], options: dict[str, Any], tmp_path: Path):
    torch.manual_seed(0)
    folder = copy("sd", tmp_path)
    change(folder)
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, **options)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        PROMPTS, num_inference_steps=3, guidance_scale=4.0, width=32, height=32, output_type="np",
        generator=[torch.Generator().manual_seed(100 + i) for i in range(2)],
    ).images  # fmt: skip
    config = tiny.config(str(folder))
    config.model = ModelConfig(path=str(folder), **options)
    config.generation.guidance, config.generation.batch_size = 4.0, 2
    engine = Engine(config, load_model(config.model, torch.device("cpu")), ())
    (batch,) = engine.generate([tiny.sample(i, prompt) for i, prompt in enumerate(PROMPTS)])
    assert batch.images.std() > 2  # a picture, not a constant
    assert np.abs(batch.images.astype(int) - (expected * 255).round()).max() == 0
