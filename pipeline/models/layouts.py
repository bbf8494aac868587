"""The names that a UNet's weights have in CompVis' code, in which older checkpoints are published, and in diffusers."""

import re
from typing import Any

_OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


_IN_BLOCK = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def compvis_names(unet: Any) -> dict[str, str]:
    """Return the name in diffusers of every weight of *unet* (``UNet2DConditionModel``), by its name in CompVis' code.

    There a block is a flat list: each layer is an entry with its resnet at 0 and its attention, if any, at 1, and each
    down- or upsampler comes after the layers of its block.
    """
    return {_compvis_name(name, unet): name for name, _ in unet.named_parameters()}


def _compvis_name(name: str, unet: Any) -> str:
    module, _, kind = name.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{kind}"
    match = _IN_BLOCK.match(name)
    if match is None:
        return name
    where, block, part, layer, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    if part == "resnets":
        head, _, tail = rest.partition(".")
        rest = f"{_IN_RESNET.get(head, head)}.{tail}"
    if where == "mid":  # resnet, attention, resnet
        return f"middle_block.{1 if part == 'attentions' else 2 * layer}.{rest}"
    layers = unet.config.layers_per_block
    if part == "downsamplers":
        return f"input_blocks.{(block + 1) * (layers + 1)}.0.{rest.replace('conv.', 'op.')}"
    if part == "upsamplers":  # behind the last layer's resnet and attention
        after = 2 if hasattr(unet.up_blocks[block], "attentions") else 1
        return f"output_blocks.{block * (layers + 1) + layers}.{after}.{rest}"
    at = block * (layers + 1) + layer
    entry = f"input_blocks.{1 + at}" if where == "down" else f"output_blocks.{at}"
    return f"{entry}.{1 if part == 'attentions' else 0}.{rest}"
