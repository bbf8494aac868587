"""Which rank this process is, of how many: given, or as torch.distributed has it, and never a guess."""

import os
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from pipeline.corpus.loader.arguments import expect_count, expect_number
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Ranks:
    """``rank`` of ``world_size`` processes that train together, both given or both asked of torch.distributed.

    Pickled, as into a spawned worker where torch.distributed is not initialised, it takes the answer along; where there
    is none yet, as before the processes of a training are spawned, each of them asks anew.
    """

    rank: int | None = None
    world_size: int | None = None

    def __post_init__(self) -> None:
        if (self.rank is None) != (self.world_size is None):
            raise ConfigError("rank and world_size go together; expected both or none")
        if self.rank is None or self.world_size is None:
            return
        expect_count("world_size", self.world_size, 1)
        expect_number("rank", self.rank)
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank is {self.rank} of {self.world_size}; expected 0 to {self.world_size - 1}")

    def settled(self) -> tuple[int, int]:
        """Return rank and world size as they are now.

        Raises ``ConfigError`` where the environment speaks of several processes and nothing says which this is.
        """
        if self.rank is not None and self.world_size is not None:
            return self.rank, self.world_size
        if dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        world = os.environ.get("WORLD_SIZE", "1")
        if world != "1":
            raise ConfigError(
                f"WORLD_SIZE is {world} and torch.distributed is not initialised; call init_process_group before the "
                "loader is used, or give rank= and world_size="
            )
        return 0, 1

    def __reduce__(self) -> Any:
        return Ranks, self.settled() if dist.is_available() and dist.is_initialized() else (self.rank, self.world_size)
