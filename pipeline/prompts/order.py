"""In which order the rows of a source are used: as they come, or shuffled on two levels.

Blocks of consecutive rows are permuted, then rows within a window of blocks. So a shard draws from a few places of the
source (few parquet row groups), while neighbours in the source end up in different windows. Memory is constant.
"""

from dataclasses import dataclass

from pipeline.prompts.seeds import permuted

BLOCK = 1024  # rows read together
WINDOW = 16  # blocks that are mixed: 16,384 rows, the most that a shard may touch more than once
SPAN = BLOCK * WINDOW


@dataclass(frozen=True)
class Order:
    """The permutation of ``range(rows)`` that *seed* names; the identity where ``shuffle`` is off.

    Rows behind the last full block are not moved to another window: they are mixed with the blocks that come last.
    """

    rows: int
    shuffle: bool
    seed: int

    def row(self, position: int) -> int:
        """Return the row that is used at *position*, 0 to ``rows - 1``."""
        if not self.shuffle:
            return position
        window, offset = divmod(position, SPAN)
        start = window * SPAN
        place = start + permuted(offset, min(SPAN, self.rows - start), "window", self.seed, window)
        slot, within = divmod(place, BLOCK)
        full = self.rows // BLOCK
        block = permuted(slot, full, "block", self.seed) if slot < full else slot
        return block * BLOCK + within
