"""What a Loader reads from: a corpus, or a mixture of several."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from pipeline.corpus.loader.arguments import shown
from pipeline.corpus.loader.corpus import Corpus
from pipeline.corpus.loader.decode import Decode
from pipeline.corpus.loader.mixture import Mixture
from pipeline.corpus.loader.order import Mixed
from pipeline.errors import ConfigError


class Source(Protocol):
    """Samples of ``columns`` by number, with pictures as ``decode`` says, and orders of them.

    ``fingerprint`` is equal where the same numbers are the same samples, ``remote`` where its storage's client does not
    survive a fork; ``skipped`` counts, in this process, damaged samples in whose place another was read.
    """

    columns: tuple[str, ...]
    decode: Decode

    @property
    def fingerprint(self) -> str: ...

    @property
    def remote(self) -> bool: ...

    @property
    def skipped(self) -> int: ...

    def order(self, seed: int, shuffle: bool) -> Mixed: ...

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return heights and widths of the pictures, in pixels, by number."""

    def read(self, rows: np.ndarray) -> list[dict[str, Any]]: ...

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """Return what ``collate`` makes of what ``read`` returns."""

    def prefetch(self, blocks: np.ndarray | Sequence[int]) -> None: ...


def expect_source(source: object) -> None:
    """Raise ``ConfigError`` for anything else."""
    if not isinstance(source, (Corpus, Mixture)):
        raise ConfigError(f"samples are of {shown(source)}; expected a Corpus or a Mixture")
