"""Names to classes: what a config may name is a table of ``module:Class`` strings, imported only when used.

A name with a colon is the user's own class (``my_package.detectors:Nsfw``), importable where the workers run, or in the
folder where the user stands.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, named_in_errors, nearest

# The class that a model's model_index.json names, and the family that knows how to drive it.
FAMILIES: dict[str, str] = {
    "StableDiffusionPipeline": "pipeline.models.sd:StableDiffusion",
    "StableDiffusionXLPipeline": "pipeline.models.sdxl:StableDiffusionXL",
    "StableDiffusion3Pipeline": "pipeline.models.sd3:StableDiffusion3",
    "FluxPipeline": "pipeline.models.flux:Flux",
}

# What model.path may name beside a hub id or a folder: the folder of the package in which the model lies.
MODELS: dict[str, str] = {
    "diorama": "diorama/weights",
}

# What model.scheduler may name. A checkpoint's own scheduler may be another; of all it is tried out, when the model is
# loaded, whether their noise comes from the generators that they are given, one per sample. LMS needs scipy; the EDM
# ones fit checkpoints that were trained for them.
SCHEDULERS: tuple[str, ...] = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)

# The erasure methods that a recipe may name.
METHODS: dict[str, str] = {
    "uce": "pipeline.erasure.methods.uce:UCE",
    "esd": "pipeline.erasure.methods.esd:ESD",
    "weights": "pipeline.erasure.methods.weights:Weights",
    "safree": "pipeline.erasure.methods.safree:SAFREE",
    "semantic_surgery": "pipeline.erasure.methods.semantic_surgery:SemanticSurgery",
    "rece": "pipeline.erasure.methods.rece:RECE",
    "speed": "pipeline.erasure.methods.speed:SPEED",
    "cease": "pipeline.erasure.cease.method:CEASE",
    "cease_joint": "pipeline.erasure.cease.joint:CEASEJoint",
    "adavd": "pipeline.erasure.methods.adavd:AdaVD",
    "sld": "pipeline.erasure.methods.sld:SLD",
    "negative_prompt": "pipeline.erasure.methods.negative_prompt:NegativePrompt",
}

# The files that prompts.source may name, by suffix: what opens them for the config's prompts.
SOURCES: dict[str, str] = {
    ".txt": "pipeline.prompts.formats:open_txt",
    ".jsonl": "pipeline.prompts.formats:open_jsonl",
    ".json": "pipeline.prompts.formats:open_json",
    ".csv": "pipeline.prompts.formats:open_csv",
    ".tsv": "pipeline.prompts.formats:open_tsv",
    ".parquet": "pipeline.prompts.parquet:ParquetSource",
}

# The detectors that audit.detectors may name.
DETECTORS: dict[str, str] = {
    "chat": "pipeline.audit.chat:Chat",
    "classifier": "pipeline.audit.classifier:Classifier",
    "clip": "pipeline.audit.clip:CLIP",
    "diorama": "pipeline.diorama.audit:DioramaAudit",
    "face": "pipeline.audit.face:Face",
    "imagenet": "pipeline.audit.imagenet:ImageNet",
    "nudenet": "pipeline.audit.nudenet:NudeNet",
    "open_nsfw": "pipeline.audit.open_nsfw:OpenNsfw",
    "open_vocabulary": "pipeline.audit.open_vocabulary:OpenVocabulary",
    "safety_checker": "pipeline.audit.safety_checker:SafetyChecker",
    "style": "pipeline.audit.style:Style",
    "vlm": "pipeline.audit.vlm:VLM",
}

# The measures that audit.quality may name.
MEASURES: dict[str, str] = {
    "aesthetic": "pipeline.audit.encoded:Aesthetic",
    "clip": "pipeline.audit.encoded:ClipScore",
    "embedding": "pipeline.audit.encoded:Embedding",
    "hash": "pipeline.audit.perceptual_hash:PerceptualHash",
    "sharpness": "pipeline.audit.sharpness:Sharpness",
}

# The worlds in which ``lacuna evaluate erasure`` can evaluate recipes.
WORLDS: dict[str, str] = {
    "diorama": "pipeline.diorama.evaluated:Diorama",
}

# What ``lacuna evaluate`` can measure besides: functions of a folder, a number of pictures and ``results``, a file for
# the figures in brief; they return the tables.
SUITES: dict[str, str] = {
    "diorama": "pipeline.diorama.suite.evaluate:evaluate_diorama",
}


def built_in_model(path: str) -> Path | None:
    """Return the folder of the built-in model that ``model.path`` names; None where it names none."""
    return Path(__file__).parent / MODELS[path] if path in MODELS else None


def is_class_name(name: str) -> bool:
    """Is it of the form ``module:Class``, and so neither a path nor a URL?"""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name) is not None


def check_name(kind: str, name: str, table: Mapping[str, str]) -> None:
    """Refuse with ``ConfigError`` a *name* that is neither in *table* nor of the form ``module:Class``."""
    if name not in table and ":" not in name:
        raise ConfigError(
            f"unknown {kind} {name!r}{nearest(name, table)}; "
            f"expected one of {', '.join(sorted(table))} or 'module:Class'"
        )


def load_class(kind: str, name: str, table: Mapping[str, str], base: type, where: str | None = None) -> type:
    """Import the class that *name*, under the key *where* of a config, stands for.

    Raises ``ConfigError`` where the name is unknown, its module or class does not exist, or it is no *base*. An error
    raised inside the module itself propagates: it is a fault in that code, and its traceback is what its author needs.
    """
    found = _load(kind, name, table, "class", where)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{_shown(kind, name, where)}: is no subclass of {base.__module__}.{base.__name__}")
    return found


def load_function(kind: str, name: str, table: Mapping[str, str]) -> Callable[..., Any]:
    """Import the function that *name* stands for; errors as those of ``load_class``."""
    found: Callable[..., Any] = _load(kind, name, table, "function", None)
    return found


def _load(kind: str, name: str, table: Mapping[str, str], what: str, where: str | None) -> Any:
    check_name(kind, name, table)
    shown = _shown(kind, name, where)
    module_name, _, attribute = table.get(name, name).partition(":")
    if name not in table and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: nothing that stands there may take the place of what is installed
    importlib.invalidate_caches()  # the file may have been written a moment ago, as in a notebook
    try:
        with named_in_errors(shown):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigError(
            f"{shown}: there is no module {module_name!r} to import, in {os.getcwd()} or installed"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{shown}: module {module_name!r} has no {what} {attribute!r}")
    return getattr(module, attribute)


def _shown(kind: str, name: str, where: str | None) -> str:
    return f"{where}: {name}" if where else f"{kind} {name!r}"
