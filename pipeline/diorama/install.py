"""Puts trained parts together: a folder that ``StableDiffusionPipeline.from_pretrained`` loads, and the detectors."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from pipeline.diorama.networks import scheduler


def assemble(folder: Path) -> StableDiffusionPipeline:
    """The pipeline of the parts in a training folder, float32, with the averaged weights of the last checkpoint."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def install(folder: Path, weights: Path) -> None:
    """Write the model as float16 safetensors, and the detectors that there are, from *folder* to *weights*.

    What is in *weights* beside them (licence, card, contact sheet) stays.
    """
    assemble(folder).to(dtype=torch.float16).save_pretrained(weights, safe_serialization=True)
    # Half precision is how the weights are stored, not how they are to be run: transformers would take the stored
    # type for the wanted one, diffusers would not, and the parts would meet in two types.
    _rewrite(weights / "text_encoder" / "config.json", dtype="float32")
    for part in ("unet", "vae"):
        _rewrite(weights / part / "config.json")
    (weights / "detectors").mkdir(exist_ok=True)
    for path in sorted((folder / "detectors").glob("*.safetensors")):
        shutil.copyfile(path, weights / "detectors" / path.name)
    shutil.copyfile(folder / "training.json", weights / "training.json")
    for path in weights.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read


def _rewrite(path: Path, **changed: str) -> None:
    """Change settings of a config file; the folder of whoever trained it is left out."""
    settings = json.loads(path.read_text()) | changed
    settings.pop("_name_or_path", None)
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
