"""``python -m pipeline.diorama.train [file.yaml] [stages=text,vae,...] [key=value ...]``: trains all parts, in order.

Every stage that is done is skipped and an interrupted UNet goes on from its last checkpoint, so the command can be
killed and repeated at will.
"""

import logging
import sys
from collections.abc import Callable

import torch

from pipeline.diorama import DIORAMA_PATH
from pipeline.diorama.install import install
from pipeline.diorama.latents import cache_latents
from pipeline.diorama.settings import Settings, load_settings
from pipeline.diorama.train_detectors import train_detector
from pipeline.diorama.train_text import train_text
from pipeline.diorama.train_unet import train_unet
from pipeline.diorama.train_vae import train_vae
from pipeline.errors import ConfigError, LacunaError, nearest

STAGES: dict[str, Callable[[Settings], object]] = {
    "text": train_text,
    "vae": train_vae,
    "latents": cache_latents,
    "detector_a": lambda settings: train_detector(settings, "a"),
    "detector_b": lambda settings: train_detector(settings, "b"),
    "unet": train_unet,
    "install": lambda settings: install(settings.path, DIORAMA_PATH),
}


def main(arguments: list[str]) -> None:
    """Run the named stages, or all."""
    chosen = [argument.removeprefix("stages=") for argument in arguments if argument.startswith("stages=")]
    stages = chosen[0].split(",") if chosen else list(STAGES)
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(f"stages: {stage!r} is none of {', '.join(STAGES)}{nearest(stage, STAGES)}")
    settings: Settings = load_settings([argument for argument in arguments if not argument.startswith("stages=")])
    torch.set_num_threads(settings.threads)
    for stage in stages:
        STAGES[stage](settings)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main(sys.argv[1:])
    except LacunaError as error:
        sys.exit(f"error: {error}")
