"""A tiny Stable Diffusion with random weights and a real CLIP tokenizer, made on the spot and saved like any model."""

import functools
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipeline.config.schema import Config, ModelConfig
from pipeline.prompts import Sample

SENTENCES = (
    "a photo of a cat and a dog on the beach",
    "two cats and a tiger in the snow, a kitten by the house",
    "a lion with a wolf near a tree at night",
    "the red car, mountains and a bowl of fruit, two people talking by a road",
)
LENGTH = 24  # tokens of a prompt


def tokenizer(sentences: Sequence[str] = SENTENCES) -> CLIPTokenizer:
    """A byte-level BPE tokenizer of CLIP's conventions, learned from a few sentences, the same in every process."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges(sentences)
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    pieces += [piece for piece in dict.fromkeys(map("".join, merges)) if piece not in set(pieces)]
    start, end = "<|startoftext|>", "<|endoftext|>"
    return CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate([*pieces, start, end])},
        merges=merges, bos_token=start, eos_token=end, unk_token=end, pad_token=end, model_max_length=LENGTH,
    )  # fmt: skip


def _merges(sentences: Sequence[str]) -> list[tuple[str, str]]:
    """Return every merge of pieces that the words lead to, the most frequent first; ties go by the alphabet.

    The trainer of ``tokenizers`` breaks ties by the order of a hash table, so that each process learns other ids.
    """
    counts = Counter(word for sentence in sentences for word in re.findall(r"\w+|[^\w\s]+", sentence.lower()))
    words = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in words.values():
            for i in range(len(parts) - 2, -1, -1):
                if (parts[i], parts[i + 1 : i + 2]) == (best[0], [best[1]]):
                    parts[i : i + 2] = ["".join(best)]


def pipeline(prediction_type: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    """Pictures of 32x32 pixels from 8x8 latents, VAE factor 4, cross-attention at 8x8 and 4x4."""
    torch.manual_seed(seed)
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=128, intermediate_size=128, projection_dim=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=LENGTH, 
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=128, attention_head_dim=(2, 4), norm_num_groups=8,
    )  # fmt: skip
    with torch.no_grad():  # random weights hardly listen to the text; these do, as trained ones would
        for name, parameter in unet.named_parameters():
            if ".attn2." in name and name.endswith("weight"):
                parameter.mul_(4.0)
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=4, norm_num_groups=8,
        mid_block_add_attention=False, sample_size=32,
    )  # fmt: skip
    schedule = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    encoder = CLIPTextModel(text)
    with torch.no_grad():  # what a token says outweighs where it stands
        encoder.get_input_embeddings().weight.mul_(10.0)
    return StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=words, unet=unet, scheduler=schedule,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def save(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> str:
    """Save a tiny pipeline under *folder*; return its path for ``model.path``."""
    path = folder / f"tiny-{prediction_type}-{seed}"
    if not path.exists():
        pipeline(prediction_type, seed).save_pretrained(path, safe_serialization=True)
    return str(path)


_FOLDER = tempfile.TemporaryDirectory(prefix="tiny-")


@functools.cache
def path(prediction_type: str = "epsilon") -> str:
    """The path of a tiny pipeline that the whole test process shares; not to be written to."""
    return save(Path(_FOLDER.name), prediction_type)


def sample(i: int, prompt: str, **fields: Any) -> Sample:
    """The *i*-th sample of shard 0."""
    values: dict[str, Any] = {
        "index": i, "key": f"000000{i:05d}", "shard": 0, "prompt": prompt, "negative_prompt": "", "seed": 100 + i,
        "width": 32, "height": 32, "prompt_index": i, "repetition": 0,
    }  # fmt: skip
    return Sample(**{**values, **fields})


def config(model: str, **sections: Any) -> Config:
    """A config of the tiny model: 3 steps, 32x32 pixels, batches of 4."""
    result = Config(model=ModelConfig(path=model))
    result.generation.steps, result.generation.size, result.generation.batch_size = 3, [32, 32], 4
    result.prompts.source = "unused.txt"
    result.output.path = "unused"
    for name, value in sections.items():
        setattr(result, name, value)
    return result
