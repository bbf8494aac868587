"""Lacuna: text-to-image corpora from concept-erased diffusion pipelines, with evidence that they are clean."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pipeline.corpus.reading import open_corpus

__all__ = ["__version__", "open_corpus"]


def __getattr__(name: str) -> Any:
    """Import ``open_corpus`` on first use: importing the package must not wait for webdataset."""
    if name == "open_corpus":
        from pipeline.corpus.reading import open_corpus

        return open_corpus
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
