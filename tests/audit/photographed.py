"""A model that draws real photographs: whatever a prompt asks for by its name comes out as that picture.

Where the environment names one under ``DIES_AT``, its process is killed when it has to draw that.
"""

import os
import signal

import torch
from torch import Tensor

from pipeline.models.family import Conditioning
from pipeline.models.sd import StableDiffusion
from tests.photographs import PHOTOGRAPHS, photograph


class Photographs(StableDiffusion):
    """Draws the photograph whose name's text is nearest to the prompt's, in the size of the latents."""

    name = "Photographs"

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        known = self.encode([f"a {name}" for name in PHOTOGRAPHS]).embeds.flatten(1)
        self.chosen = torch.cdist(conditioning.embeds.flatten(1).float(), known.float()).argmin(1).tolist()
        return 0 * super().predict(latents, timestep, conditioning, guidance)  # whose layers must hear the text

    def decode(self, latents: Tensor) -> Tensor:
        size = [side * self.factor for side in latents.shape[2:]]
        names = [*PHOTOGRAPHS]
        if os.environ.get("DIES_AT") in [names[i] for i in self.chosen]:
            os.kill(os.getpid(), signal.SIGKILL)
        pixels = [torch.from_numpy(photograph(names[i])).permute(2, 0, 1)[None].float() for i in self.chosen]
        scaled = [torch.nn.functional.interpolate(p, size, mode="bilinear", antialias=True) for p in pixels]
        return torch.cat(scaled) / 127.5 - 1
