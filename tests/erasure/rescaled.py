"""Models that draw the same pictures with another text encoder: the states of its words scaled and shifted."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from pipeline.config.schema import DType, ModelConfig
from pipeline.models.load import load_model


@torch.no_grad()
def rescaled(folder: Path, seed: int, path: str = "diorama") -> Path:
    """Save such a model, made of the Stable Diffusion at *path*, in *folder*, and return that.

    Each dimension of the states has a factor of its own, of either sign and log-normal within .1 to 10, as in real
    encoders, where a few dimensions rule; then a common vector three times their size is added. The denoiser takes both
    back: keys and values are divided by the factors; what the vector adds to all keys cancels in the softmax, and what
    it adds to the values is taken from the bias of what follows.
    """
    pipe: StableDiffusionPipeline = load_model(ModelConfig(path=path, dtype=DType.float32), torch.device("cpu")).pipe
    random = torch.Generator().manual_seed(seed)
    (norm,) = (m for name, m in pipe.text_encoder.named_modules() if name.endswith("final_layer_norm"))
    width = norm.weight.shape[0]
    scale = torch.empty(width).normal_(generator=random).mul(1.15).clamp(-2.3, 2.3).exp()  # .1 to 10
    scale *= torch.empty(width).normal_(generator=random).sign()
    states = pipe.text_encoder(pipe.tokenizer(["a cat by a tree"], return_tensors="pt").input_ids)[0] * scale
    shift = torch.nn.functional.normalize(torch.empty(width).normal_(generator=random), dim=0)
    shift *= 3 * states.norm(dim=-1).mean()
    norm.weight.mul_(scale)
    norm.bias.mul_(scale).add_(shift)
    for name, attention in pipe.unet.named_modules():
        if name.endswith("attn2"):
            for projection in (attention.to_k, attention.to_v):
                projection.weight.div_(scale)
            out = attention.to_out[0]
            out.bias.sub_(out.weight @ (attention.to_v.weight @ shift))
    pipe.save_pretrained(folder)
    return folder
