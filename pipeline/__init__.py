"""Lacuna: text-to-image corpora from concept-erased diffusion pipelines, with evidence that they are clean.

What a subclass of one's own needs is imported from here (``pipeline/EXTENDING.md`` shows it), and stays where it is.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pipeline.audit.detector import Detector
    from pipeline.audit.measure import Measure
    from pipeline.corpus.loader import Corpus, Loader, Mixture, open_corpus
    from pipeline.erasure.method import Method, Prompts, Sampling, Steering
    from pipeline.erasure.methods.esd import compute_erasure_loss
    from pipeline.errors import ConfigError
    from pipeline.models.family import Conditioning, Family
    from pipeline.prompts.own import Source

__all__ = [
    "Conditioning",
    "ConfigError",
    "Corpus",
    "Detector",
    "Family",
    "Loader",
    "Measure",
    "Method",
    "Mixture",
    "Prompts",
    "Sampling",
    "Source",
    "Steering",
    "__version__",
    "compute_erasure_loss",
    "open_corpus",
]

_PLACES = {
    "Conditioning": "pipeline.models.family",
    "ConfigError": "pipeline.errors",
    "Corpus": "pipeline.corpus.loader",
    "Detector": "pipeline.audit.detector",
    "Family": "pipeline.models.family",
    "Loader": "pipeline.corpus.loader",
    "Measure": "pipeline.audit.measure",
    "Method": "pipeline.erasure.method",
    "Mixture": "pipeline.corpus.loader",
    "Prompts": "pipeline.erasure.method",
    "Sampling": "pipeline.erasure.method",
    "Source": "pipeline.prompts.own",
    "Steering": "pipeline.erasure.method",
    "compute_erasure_loss": "pipeline.erasure.methods.esd",
    "open_corpus": "pipeline.corpus.loader",
}


def __getattr__(name: str) -> Any:
    """Import on first use: importing the package must not wait for torch."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
