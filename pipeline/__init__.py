"""Lacuna: text-to-image corpora from concept-erased diffusion pipelines, with evidence that they are clean."""

__version__ = "0.1.0"
