"""Ready-made erased checkpoints: weights of the denoiser as others trained or solved them, or a LoRA, as an edit.

Takes one safetensors file with any part of the denoiser's weights, under the names in which such checkpoints are
published (ESD, UCE, SPEED and others): diffusers' own, with or without ``unet.`` or ``transformer.`` before them, or
CompVis' (``model.diffusion_model.``, ``input_blocks.``). Weights of text encoders count too where their names begin
with the pipeline's (``text_encoder.``). Weights that the model has already are left out. A file with LoRA matrices, in
diffusers', peft's or kohya's layout, is read by diffusers and folded in.

The recipe's self-check judges the result like any edit, by the concepts that the step names.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from pipeline.erasure.method import Method
from pipeline.errors import ConfigError, nearest
from pipeline.models.adapters import is_lora, lora_weights, safetensors_file
from pipeline.models.layouts import compvis_names

_WHOLE = ("first_stage_model.", "cond_stage_model.", "conditioner.", "model_ema.")  # of a single-file checkpoint


@dataclass(kw_only=True)
class WeightsOptions:
    path: str = ""  # a safetensors file, a folder or a hub id that holds one
    revision: str | None = None  # on the hub
    scale: float = 1.0  # of a LoRA

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise ConfigError("path is missing; expected a .safetensors file, or a folder or hub id that holds one")


class Weights(Method):
    """Replaces weights by those of a file."""

    Options = WeightsOptions
    stronger, weaker = "raise scale, if it is a LoRA", "lower scale, if it is a LoRA,"
    options: WeightsOptions

    @classmethod
    def files(cls, options: Any, label: str) -> list[Path]:
        return [safetensors_file(f"{label}: {options.path}", options.path, options.revision)]

    @classmethod
    def edits_text(cls, options: Any, label: str) -> bool:
        (path,) = cls.files(options, label)
        try:
            with safe_open(path, "pt") as file:
                names = file.keys()  # of a LoRA diffusers', peft's or kohya's
        except SafetensorError as error:
            raise _unreadable(f"{label}: {options.path}", error) from error
        return any("text" in name or name.startswith("lora_te") for name in names)

    def edit(self) -> dict[str, Tensor]:
        where = f"{self.label}: {self.options.path}"
        (path,) = self.files(self.options, self.label)
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise _unreadable(where, error) from error
        if is_lora(state):
            return lora_weights(self.model.pipe, path, self.options.scale, where)
        if self.options.scale != 1:
            raise ConfigError(f"{where} is no LoRA: the option scale is for those alone")
        return self._changed(self._placed(state, where), where)

    def _placed(self, state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
        """Return the tensors under the names that they have from the pipeline on, each of the shape it must have."""
        whole = next((key for key in state if key.startswith(_WHOLE)), None)
        if whole is not None:
            raise ConfigError(
                f"{where} is a whole checkpoint (it has {whole}); convert it with diffusers' from_single_file and "
                "save_pretrained, and give the folder as model.path"
            )
        denoiser = self.model.family.denoiser_name
        compvis = compvis_names(self.model.family.denoiser) if denoiser == "unet" else {}
        parameters = dict(self.model.parameters())
        placed: dict[str, Tensor] = {}
        strange: list[str] = []
        for key, tensor in state.items():
            short = key.removeprefix("model.diffusion_model.")
            names = (key, f"{denoiser}.{key}", f"{denoiser}.{compvis.get(short, short)}")
            name = next((name for name in names if name in parameters), None)
            if name is None:
                strange.append(key)
                continue
            if tensor.shape != parameters[name].shape:
                raise ConfigError(
                    f"{where}: {key} is {tuple(tensor.shape)}, but this model's is {tuple(parameters[name].shape)}; "
                    "the file belongs to another architecture"
                )
            if not tensor.isfinite().all():
                raise ConfigError(f"{where}: {key} has values that are not finite")
            placed[name] = tensor
        if not placed:
            has = ", ".join(strange[:2]) or "none"
            raise ConfigError(f"{where} has no tensor in common with this model (it has {has})")
        if strange:
            near = nearest(strange[0], [name.removeprefix(f"{denoiser}.") for name in parameters])
            share = f"{len(strange)} of {len(state)} tensors"
            raise ConfigError(f"{where}: {share} have no place in this model, such as {strange[0]}{near}")
        return placed

    def _changed(self, placed: dict[str, Tensor], where: str) -> dict[str, Tensor]:
        parameters = dict(self.model.parameters())
        changed = {
            name: tensor
            for name, tensor in placed.items()
            if not torch.equal(tensor.to(parameters[name]), parameters[name])
        }
        if not changed:
            raise ConfigError(f"{where} changes nothing: all its weights are those of the model")
        return changed


def _unreadable(where: str, error: SafetensorError) -> ConfigError:
    return ConfigError(f"{where} is no readable safetensors file ({error})")
