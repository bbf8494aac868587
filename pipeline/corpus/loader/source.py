"""What a Loader reads from: a corpus, or a mixture of several."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from pipeline.corpus.loader.order import Mixed


class Source(Protocol):
    """Samples by number and orders of them. ``fingerprint`` is equal where the same numbers are the same samples,
    ``remote`` where its storage's client does not survive a fork; ``skipped`` counts, in this process, damaged samples
    in whose place another was read."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def remote(self) -> bool: ...

    @property
    def skipped(self) -> int: ...

    def order(self, seed: int, shuffle: bool) -> Mixed: ...

    def read(self, rows: np.ndarray) -> list[dict[str, Any]]: ...

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """Return what ``collate`` makes of what ``read`` returns."""

    def prefetch(self, blocks: np.ndarray | Sequence[int]) -> None: ...
