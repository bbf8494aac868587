"""torch's inductor where a test has no minutes to wait: each operation is left to torch's own kernels.

It traces, lowers, keeps, saves and loads as ever, and calls no C++ compiler. With ``LACUNA_INDUCTOR=full`` in the
environment there is no such change, and tests take as long as inductor does.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch._inductor
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch._inductor import config

from pipeline.models.compiling import obstacle
from tests import tiny

FULL = os.environ.get("LACUNA_INDUCTOR") == "full"

needs_inductor = pytest.mark.skipif(
    obstacle("cpu") is not None or not (FULL or hasattr(torch._inductor, "lite_mode_options")),
    reason="no C++ compiler is here, or this torch has no lite mode",
)


def lite() -> AbstractContextManager[Any]:
    """While inside, inductor compiles so."""
    return nullcontext() if FULL else config.patch(torch._inductor.lite_mode_options)


def save(folder: Path) -> str:
    """Save a pipeline under *folder* of which there is as little to compile as there can be; return its path."""
    pipe, path = tiny.pipeline(), folder / "least"
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32,), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("UpBlock2D",), mid_block_type=None,
        cross_attention_dim=128, attention_head_dim=2, norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=0, latent_channels=4, norm_num_groups=8,
        mid_block_add_attention=False, sample_size=32,
    )  # fmt: skip
    type(pipe)(**pipe.components | {"unet": unet, "vae": vae}, requires_safety_checker=False).save_pretrained(path)
    return str(path)
