"""What a training script imports: a corpus as a dataset, and a loader of exact counts that resumes exactly."""

from pipeline.corpus.loader.cache import Cache
from pipeline.corpus.loader.corpus import Corpus
from pipeline.corpus.loader.loader import Loader
from pipeline.corpus.loader.mixture import Mixture
from pipeline.corpus.loader.pairs import open_corpus
from pipeline.corpus.loader.samplers import BatchSampler, Stream

__all__ = ["BatchSampler", "Cache", "Corpus", "Loader", "Mixture", "Stream", "open_corpus"]
