"""What a config's ``model`` may be, by the names of diffusers' classes, so that checking a name imports nothing."""

# The class that a model's model_index.json names, and the family that knows how to drive it.
FAMILIES: dict[str, str] = {
    "StableDiffusionPipeline": "pipeline.models.sd:StableDiffusion",
    "StableDiffusionXLPipeline": "pipeline.models.sdxl:StableDiffusionXL",
    "StableDiffusion3Pipeline": "pipeline.models.sd3:StableDiffusion3",
    "FluxPipeline": "pipeline.models.flux:Flux",
}

# Schedulers that draw their noise from the generators they are given, one per sample. The others of diffusers either
# need packages of their own (DPMSolverSDEScheduler: torchsde) or belong to other kinds of model.
SCHEDULERS: tuple[str, ...] = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
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
