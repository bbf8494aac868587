"""The shipped folder is a Stable Diffusion like any other: it loads, obeys its seed, and shows what it is asked for."""

import pytest
import torch
from diffusers import StableDiffusionPipeline

from pipeline.diorama import DIORAMA_PATH
from pipeline.diorama.detector import DioramaDetector
from pipeline.diorama.lexicon import OBJECTS
from pipeline.diorama.networks import TEXT_WIDTH


@pytest.fixture(scope="module")
def pipe():
    pipe = StableDiffusionPipeline.from_pretrained(DIORAMA_PATH)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, prompts, steps=20):
    generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    images = pipe(prompts, num_inference_steps=steps, guidance_scale=4.0, generator=generators, output_type="np").images
    return torch.from_numpy((images * 255).round().astype("uint8"))


def test_all_parts_load_in_one_type(pipe):
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}
    assert pipe.text_encoder.config.eos_token_id == pipe.tokenizer.eos_token_id


def test_cross_attention_at_16_and_at_8(pipe):
    sizes = set()

    def note(module, args, kwargs):
        if kwargs.get("encoder_hidden_states", None) is not None and args[0].shape[-1] != TEXT_WIDTH:
            sizes.add(args[0].shape[1])

    hooks = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for name, module in pipe.unet.named_modules()
        if name.endswith("attn2")
    ]
    pipe.unet(torch.zeros(1, pipe.unet.config.in_channels, 16, 16), 10, torch.zeros(1, 32, TEXT_WIDTH))
    for hook in hooks:
        hook.remove()
    assert {16 * 16, 8 * 8} <= sizes


@pytest.mark.slow
def test_shows_what_it_is_asked_for_and_not_what_it_is_not(pipe):
    names = ("cat", "apple", "panda", "bomb", "sunflower", "pill", "burger", "fox")
    images = draw(pipe, [f"a {name} in a meadow" for name in names])
    seen = DioramaDetector.load("b").probabilities(images)[:, : len(OBJECTS)] >= 0.5
    shown = [seen[i, OBJECTS.index(name)] for i, name in enumerate(names)]
    assert sum(map(bool, shown)) >= 6


def test_the_same_seed_is_the_same_picture(pipe):
    assert torch.equal(draw(pipe, ["a dog"], steps=3), draw(pipe, ["a dog"], steps=3))


def test_everything_is_small_enough_for_a_repository():
    assert sum(path.stat().st_size for path in DIORAMA_PATH.rglob("*") if path.is_file()) < 60e6
