"""What a config's ``model`` may be, by the names of diffusers' classes, so that checking a name imports nothing."""

# The class that a model's model_index.json names, and the family that knows how to drive it.
FAMILIES: dict[str, str] = {
    "StableDiffusionPipeline": "pipeline.models.sd:StableDiffusion",
    "StableDiffusionXLPipeline": "pipeline.models.sdxl:StableDiffusionXL",
    "StableDiffusion3Pipeline": "pipeline.models.sd3:StableDiffusion3",
    "FluxPipeline": "pipeline.models.flux:Flux",
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
