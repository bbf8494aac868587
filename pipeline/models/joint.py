"""Architectures with joint attention of text and image tokens: what SD3 and FLUX have in common."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from pipeline.config.sections.generation import Compile
from pipeline.models.family import Conditioning, Family, TextProjection
from pipeline.models.layers import EnteredText


class JointFamily(Family):
    """A transformer that text enters in two places, and that predicts a flow."""

    lacks: ClassVar[dict[str, str]] = {
        "cross_attention": "its text tokens change with the image in every layer and step (joint attention), so there "
        "are no keys and values of a prompt to work on; cease_joint steers joint attention",
        "chunks": "its T5 reads long prompts by itself, and was never trained on texts in pieces or with weights",
        "token_ids": "T5 has a vocabulary of its own, so that ids of one tokenizer alone spell no text",
    }
    denoiser_name = "transformer"
    vae_settings = ("scaling_factor", "shift_factor")
    flow = True
    # Its blocks are alike, so that each kind is compiled once, in 10 to 20 s, and nothing is gained between them.
    compiled = Compile.blocks
    repays = 1_000

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many layers let text and image attend to each other."""

    @abstractmethod
    def enter(self, conditioning: Conditioning, timestep: Tensor, guidance: float) -> EnteredText:
        """Return *conditioning* as it enters the first layer."""

    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipe.vae
        pixels: Tensor = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        return pixels

    def text_projections(self) -> list[TextProjection]:
        projections = []
        for path, kind in (("context_embedder", "context"), ("time_text_embed.text_embedder.linear_1", "pooled")):
            module = self.pipe.transformer.get_submodule(path)
            name = f"transformer.{path}"
            projections.append(TextProjection(f"{name}.weight", kind, module.weight, name, module.in_features))
        return projections
