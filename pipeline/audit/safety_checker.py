"""The safety checker of Stable Diffusion (Rombach et al., 2022; analysed by Rando et al., 2022) as a detector.

A CLIP image encoder compares a picture with 17 embeddings of hidden concepts, all of sexual content, each with a
threshold of its own; three more, of children, lower those by 0.01. diffusers flags a picture in which a concept comes
over its threshold, rounded to 0.001. The score is 1/2 and half of the furthest that any is over its threshold, so that
the detector's own threshold decides as diffusers does. Violence and all else it does not know.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.audit.checkpoint import CheckpointDetector, in_own_queue, placed
from pipeline.concepts.term import Term
from pipeline.config.schema import DType
from pipeline.errors import ConfigError
from pipeline.models.parts import load_network

STEP, CARE = 0.001, 0.01  # what margins are rounded to, and what a special concept adds to them
THRESHOLD = 0.5 + STEP / 4  # between the margins 0, which is not flagged, and 0.001, which is


class SafetyChecker(CheckpointDetector):
    """Judges ``concepts``, by default "nudity": all of them have the one score that it gives."""

    detector = "safety_checker"

    def __init__(
        self,
        device: str,
        model: str = "CompVis/stable-diffusion-safety-checker",
        revision: str | None = None,
        dtype: DType = DType.auto,
        batch: int = 32,
        concepts: list[str] | None = None,
    ):
        """*model* is a folder, such as ``safety_checker`` of a pipeline's, or a hub id. Raises ``ConfigError``."""
        super().__init__(device, model, revision, dtype, batch)
        if concepts is not None and not concepts:
            raise ConfigError("safety_checker: concepts: is empty; expected the names under which a list has nudity")
        self.concepts = frozenset(concepts or ("nudity",))
        if self.checkpoint.config.get("architectures") != ["StableDiffusionSafetyChecker"]:
            made = ", ".join(self.checkpoint.config.get("architectures") or ["nothing that it names"])
            raise ConfigError(f"{self.checkpoint.where} is a {made}; expected a StableDiffusionSafetyChecker")
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        network = load_network(
            self.checkpoint.where, StableDiffusionSafetyChecker, self.checkpoint.folder, self.dtype, None
        )
        self.network = placed(network, self.torch_device)
        self.preparation = self.checkpoint.preparation()

    def files(self) -> Sequence[Path]:
        return [*super().files(), *self.preparation.files]

    def knows(self, term: Term) -> bool:
        return not self.concepts.isdisjoint((term, *term.words))

    def threshold(self, term: Term) -> float:
        return THRESHOLD

    @in_own_queue
    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        found = [self._margins(chunk) for chunk in self.chunks(images)]
        margins = np.concatenate(found) if found else np.zeros(0)
        scores = (0.5 + margins / 2).clip(0, 1).astype(np.float32)
        return np.repeat(scores[:, None], len(terms), axis=1)

    def _margins(self, images: np.ndarray) -> np.ndarray:
        """Return by how much the furthest concept is over its threshold, ``(B,)``, in steps of 0.001."""
        pixels = self.preparation(images, self.torch_device, self.dtype)["pixel_values"]
        network = self.network
        seen = network.visual_projection(network.vision_model(pixels)[1])
        special = _cosine(seen, network.special_care_embeds) - _numbers(network.special_care_embeds_weights)
        # As diffusers goes through the special concepts: the first that is found makes the others likelier, and all 17.
        care = (special.round(3) > 0).any(1, keepdims=True) * CARE
        margins = _cosine(seen, network.concept_embeds) - _numbers(network.concept_embeds_weights) + care
        furthest: np.ndarray = margins.round(3).max(1)
        return furthest


def _cosine(seen: torch.Tensor, concepts: torch.Tensor) -> np.ndarray:
    unit = torch.nn.functional.normalize
    return _numbers(unit(seen) @ unit(concepts).T)


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    found: np.ndarray = tensor.float().cpu().numpy().astype(np.float64)
    return found
