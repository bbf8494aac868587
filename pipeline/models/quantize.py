"""``generation.quantize: fp8``: the denoiser's large linear layers in 8 bits, weights and activations, by torchao.

Scales are of each row, of a weight's and of each token's: a scale of the whole batch would have a sample's bytes depend
on its neighbours, and an unconcerned one on what is erased in others. What a layer's input is modulated by (time,
pooled text, guidance) stays as it is: these layers are small, and every pixel depends on them.
"""

from torch import nn

from pipeline.config.sections.generation import Quantize

STAY = ("norm", "time_emb", "embed")  # parts of names: modulation of blocks, and ways in
SHARES = 16  # what both sides of a weight are multiples of for the hardware's product


def quantize_denoiser(denoiser: nn.Module, how: Quantize) -> int:
    """Quantize *denoiser* in place, after which its weights cannot be edited, and return how many layers were."""
    if how is Quantize.none:
        return 0
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_
    from torchao.quantization.quantize_.common import KernelPreference

    # torch's own kernel, whatever else is installed; and the compiler's settings are not torchao's to change.
    config = Float8DynamicActivationFloat8WeightConfig(
        granularity=PerRow(), kernel_preference=KernelPreference.TORCH, set_inductor_config=False
    )
    quantize_(denoiser, config, filter_fn=is_quantized)
    return sum(is_quantized(module, name) for name, module in denoiser.named_modules())


def is_quantized(module: nn.Module, name: str) -> bool:
    """Is the layer of this *name* within the denoiser one that is quantized? Those of its blocks, large ones alone."""
    return (
        isinstance(module, nn.Linear)
        and "blocks." in name
        and not any(part in name for part in STAY)
        and module.in_features % SHARES == 0
        and module.out_features % SHARES == 0
    )
