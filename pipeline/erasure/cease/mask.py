"""WHERE: the place of a concept in each picture, gathered from cross-attention while sampling.

Maps of several layers and steps are added up on one grid, so that a single noisy one decides nothing. The mask is
relative to each picture's own peak (adaptive), widened by one cell, because a concept's outline is drawn from outside
its attention peak, and smoothed, because a hard edge shows. Knows nothing of concepts; it is told which tokens count.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from pipeline.errors import ConfigError
from pipeline.models.transfer import to_device

CELLS = 32 * 32


def most_positions(latent_shape: tuple[int, int, int]) -> int:
    """Return up to how many positions a layer's maps are gathered: finer ones hardly see objects.

    32 x 32, or a quarter of the latents' height and width where that is more: no layer of SDXL is coarser than that, so
    at 1280x1024 (40 x 32 positions) none would be gathered.
    """
    _, height, width = latent_shape
    return max(CELLS, math.ceil(height / 4) * math.ceil(width / 4))


def grid(positions: int, latent_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return the height and width of a layer's *positions*, the latents' own divided by a power of two."""
    _, height, width = latent_shape
    factor = 1
    while math.ceil(height / factor) * math.ceil(width / factor) > positions:
        factor *= 2
    return math.ceil(height / factor), math.ceil(width / factor)


def grids(latent_shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Return height and width of all that ``grid`` may return, from the latents' own to a single position."""
    sizes = [latent_shape[1:]]
    while sizes[-1] != (1, 1):
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes


def check_look(look: float, steps: int) -> None:
    """Raise ``ConfigError`` where the share *look* of the steps, in which maps are only gathered, leaves no step to
    switch in. A single step is switched whatever *look* is."""
    if steps > 1 and (steps - 1) / steps < look:
        raise ConfigError(
            f"a look of {look:g} leaves none of the {steps} steps to switch in; set options.look lower, such as 0.15"
        )


class PlaceMask:
    """Masks of ``rows`` pictures, each ``(h, w)`` in 0..1 at any layer's resolution.

    ``thresholds`` are, for each row, the share of the map's range above which a position belongs to the concept.
    ``everywhere`` lists the rows whose mask is always the whole picture: what they are about has no place.
    """

    def __init__(
        self,
        rows: int,
        latent_shape: tuple[int, int, int],
        thresholds: Sequence[float],
        device: torch.device,
        everywhere: Sequence[int] = (),
    ):
        self.latent_shape = latent_shape
        placeless = torch.zeros(rows, 1, 1, 1, dtype=torch.bool)
        placeless[list(everywhere)] = True
        self.thresholds = to_device(torch.tensor(thresholds).view(rows, 1, 1, 1), device)
        self.placeless = to_device(placeless, device)
        self.shows = len(everywhere) < rows  # or else no map is needed
        positions = latent_shape[1] * latent_shape[2]
        while positions > most_positions(latent_shape):
            positions = math.prod(grid(positions // 2, latent_shape))
        self.size = grid(positions, latent_shape)
        self.sum = torch.zeros((rows, 1, *self.size), device=device)
        self.maps = 0  # gathered so far
        self.begun = False  # later than the first step where a concept was heard only then
        self._at: dict[int, Tensor] = {}

    def gather(self, maps: Tensor) -> None:
        """Add *maps*, float32 ``(M, rows, N)`` of one resolution, at least 0, each relative to its own peak."""
        self.maps += len(maps)
        together = (maps / maps.amax(-1, keepdim=True).clamp_min(1e-12)).sum(0)
        together = together.view(-1, 1, *grid(maps.shape[-1], self.latent_shape))
        self.sum += interpolate(together, self.size, mode="bilinear", align_corners=False)

    def update(self) -> None:
        """Make the mask anew from what was gathered so far."""
        low, high = self.sum.amin((2, 3), keepdim=True), self.sum.amax((2, 3), keepdim=True)
        relative = (self.sum - low) / (high - low).clamp_min(1e-12)
        wide = max_pool2d((relative >= self.thresholds).float(), 3, stride=1, padding=1)
        self._set(avg_pool2d(wide, 3, stride=1, padding=1, count_include_pad=False))

    def begin(self, step: int, looks: bool, gathered: bool) -> None:
        """Make the mask of a step: nothing while the method only *looks*, else where it is, if there is news of it.

        Raises ``ConfigError`` where its first step has shown nothing at all: the mask would stay empty.
        """
        if self.begun and not self.maps and self.shows:
            _, height, width = self.latent_shape
            raise ConfigError(
                f"no layer of the model shows where the concept is: maps are gathered from those of at most "
                f"{most_positions(self.latent_shape):,} positions, and in latents of {width}x{height} it has none; "
                "choose another generation.size, or another method than cease"
            )
        self.begun = True
        if looks:
            self.nowhere()
        elif step == 0:
            self.everywhere()  # before the first step there is no map to switch by
        elif gathered:
            self.update()

    def everywhere(self) -> None:
        """Make it the whole picture, until the next ``update``."""
        self._set(torch.ones_like(self.sum))

    def nowhere(self) -> None:
        """Make it nothing, but for those that have no place, until the next ``update``."""
        self._set(torch.zeros_like(self.sum))

    def shown(self, samples: int, members: Sequence[int], looks: bool) -> dict[str, Tensor]:
        """Return the masks as ``Steering.masks`` does, of a batch of *samples* of which *members* are the rows."""
        if looks:  # nothing is switched yet: what was gathered so far, as it would be switched
            self.update()
        masks = torch.zeros((samples, *self.size), device=self.sum.device)
        masks[list(members)] = self.mask[:, 0]
        return {"looks" if looks else "switches": masks}

    def _set(self, mask: Tensor) -> None:
        self.mask, self._at = torch.where(self.placeless, 1.0, mask), {}

    def at(self, positions: int, dtype: torch.dtype) -> Tensor:
        """Return the mask ``(rows, N, 1)`` for a layer of N *positions*."""
        if positions not in self._at:
            size = grid(positions, self.latent_shape)
            mask = interpolate(self.mask, size, mode="bilinear", align_corners=False)
            self._at[positions] = mask.reshape(mask.shape[0], positions, 1).to(dtype)
        return self._at[positions]

    def weights(self, strength: Tensor) -> dict[int, Tensor]:
        """Return the mask times *strength* ``(rows, 1, 1)``, in its dtype, as ``Switching.weights``."""
        return {h * w: strength * self.at(h * w, strength.dtype) for h, w in grids(self.latent_shape)}
