"""Which planned samples a loaded model and a detector can do at all: what the plan, which knows neither, let pass."""

from dataclasses import replace

from pipeline.audit.auditor import Auditor
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.prompts import Sample


class Drawable:
    """Asks *engine* and *auditor* once for each size."""

    def __init__(self, engine: Engine, auditor: Auditor | None):
        self._engine, self._auditor = engine, auditor
        self._sizes: dict[tuple[int, int], str | None] = {}

    def fault(self, sample: Sample) -> str | None:
        """Say why *sample* cannot be drawn, or None: its row's own fault, its size, or a negative prompt in vain."""
        if sample.fault is not None:
            return sample.fault
        if sample.negative_prompt and not self._engine.guided:
            return "has a negative prompt, to which this model and guidance do not listen"
        size = sample.width, sample.height
        if size not in self._sizes:
            self._sizes[size] = self._fault_of_size(*size)
        return self._sizes[size]

    def placed(self, sample: Sample) -> Sample:
        """Return *sample* as it has its place in a batch: one that cannot be drawn, which padding stands for, has the
        run's size, because nothing can be drawn in a size that is at fault."""
        if self.fault(sample) is None:
            return sample
        width, height = self._engine.config.generation.pixels
        return replace(sample, width=width, height=height)

    def _fault_of_size(self, width: int, height: int) -> str | None:
        model, steps = self._engine.model, self._engine.config.generation.steps
        try:
            model.family.latent_shape(width, height)
            model.family.check_steps(model.pipe.scheduler, steps, width, height, "generation.steps")
            if self._auditor is not None:
                self._auditor.check_size(width, height)
        except ConfigError as error:
            return str(error).removeprefix("generation.size: ")
        return None
