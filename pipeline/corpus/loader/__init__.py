"""What a training script imports: a corpus as a dataset, and a loader of exact counts that resumes exactly."""

from pipeline.corpus.loader.cache import Cache
from pipeline.corpus.loader.corpus import Corpus

__all__ = ["Cache", "Corpus"]
