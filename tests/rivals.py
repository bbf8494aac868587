"""An edit that another start overtakes, and that comes out otherwise each time, as on another device."""

from collections.abc import Callable

from torch import Tensor

from pipeline.erasure.methods.uce import UCE

meanwhile: list[Callable[[], object]] = []  # what others do while the next edit is solved


class OvertakenUCE(UCE):
    solved = 0

    def edit(self) -> dict[str, Tensor]:
        while meanwhile:
            meanwhile.pop()()
        OvertakenUCE.solved += 1
        return {name: weight * (1 + 1e-6 * OvertakenUCE.solved) for name, weight in super().edit().items()}
