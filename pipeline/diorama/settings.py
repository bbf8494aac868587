"""The settings of a training run, from one YAML file with ``key=value`` overrides, and where its files lie."""

import json
import logging
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Stage:
    """One network's training: pictures (or captions) seen, batch size, peak learning rate."""

    samples: int
    batch_size: int = 32
    lr: float = 1e-3


@dataclass(kw_only=True)
class Settings:
    """All of ``configs/diorama/train.yaml``."""

    folder: str = "out/diorama-training"
    device: str = "cpu"
    threads: int = 2
    seed: int = 0
    checkpoint_minutes: float = 5.0
    text: Stage = field(default_factory=lambda: Stage(samples=300_000, batch_size=64))
    vae: Stage = field(default_factory=lambda: Stage(samples=20_000))
    unet: Stage = field(default_factory=lambda: Stage(samples=1_000_000, batch_size=64))
    detector_a: Stage = field(default_factory=lambda: Stage(samples=60_000, batch_size=64))
    detector_b: Stage = field(default_factory=lambda: Stage(samples=60_000, batch_size=64))
    latents: int = 120_000
    caption_dropout: float = 0.1
    ema_decay: float = 0.998
    decay: float = 0.25  # share of the UNet's steps over which the learning rate falls to zero
    compile: bool = False
    bf16: bool = False  # autocast; for GPUs and for CPUs with bf16 instructions (others emulate it, slowly)
    start_from: str = ""  # a folder of weights whose UNet and detectors are trained further

    @property
    def path(self) -> Path:
        """The folder of checkpoints and finished parts, made if missing."""
        path = Path(self.folder)
        path.mkdir(parents=True, exist_ok=True)
        return path


def load_settings(arguments: list[str]) -> Settings:
    """Settings from ``[file.yaml] key=value ...``. Raises ConfigError on an unknown key, a wrong type or no file."""
    files = [argument for argument in arguments if "=" not in argument]
    overrides = [argument for argument in arguments if "=" in argument]
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(Settings), *(OmegaConf.load(f) for f in files), OmegaConf.from_dotlist(overrides)
        )
        return cast(Settings, OmegaConf.to_object(merged))
    except (OmegaConfBaseException, OSError) as error:
        raise ConfigError(f"{' '.join(arguments)}: {str(error).splitlines()[0]}") from error


def record(settings: Settings, stage: str, facts: dict[str, Any]) -> None:
    """Put what the weights' card says of one stage's training into ``training.json``, beside the other stages'.

    Weights that training started from keep their own record, under "before".
    """
    path = settings.path / "training.json"
    known: dict[str, Any] = {}
    if path.exists():
        known = json.loads(path.read_text())
    elif settings.start_from:
        known = {"before": json.loads((Path(settings.start_from) / "training.json").read_text())}
    machine = f"{settings.device}, {settings.threads} threads, {platform.machine()}, torch {torch.__version__}"
    known[stage] = facts | {"machine": machine}
    path.write_text(json.dumps(known, indent=2) + "\n")
