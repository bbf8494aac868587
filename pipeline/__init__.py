"""Lacuna: text-to-image corpora from concept-erased diffusion pipelines, with evidence that they are clean."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pipeline.corpus.loader import Corpus, Loader, Mixture
    from pipeline.corpus.reading import open_corpus
    from pipeline.erasure.methods.esd import compute_erasure_loss

__all__ = ["Corpus", "Loader", "Mixture", "__version__", "compute_erasure_loss", "open_corpus"]

_PLACES = {
    "Corpus": "pipeline.corpus.loader",
    "Loader": "pipeline.corpus.loader",
    "Mixture": "pipeline.corpus.loader",
    "open_corpus": "pipeline.corpus.reading",
    "compute_erasure_loss": "pipeline.erasure.methods.esd",
}


def __getattr__(name: str) -> Any:
    """Import on first use: importing the package must wait neither for webdataset nor for torch."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
