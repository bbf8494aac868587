"""What a worker does with its share of a step: read, transform, collate. A function of the share alone."""

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, get_worker_info

from pipeline.corpus.loader.arguments import shown
from pipeline.corpus.loader.collate import collate
from pipeline.corpus.loader.order import Share
from pipeline.corpus.loader.source import Source
from pipeline.errors import ConfigError, LacunaError
from pipeline.prompts.seeds import hashed

SIZE = "size"  # the column that says which size a batch of an aspect bucket has

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]


class Received(NamedTuple):
    """A batch, and how many of its samples stand in for damaged ones."""

    batch: dict[str, Any]
    skipped: int


class Reader(Dataset[Received | LacunaError]):
    """Turns shares into batches. What is drawn at random in a transform depends on *seed*, epoch and position alone,
    so that it is the same at any number of ranks and workers.

    A worker hands its errors on as they are: raised in it, torch would make a page of each.
    """

    def __init__(self, source: Source, transform: Transform | None, seed: int):
        self._source, self._transform, self._seed = source, transform, seed

    def __getitems__(self, share: Share) -> Received | LacunaError:
        try:
            return self._received(share)
        except LacunaError as error:
            if get_worker_info() is None:
                raise
            return error

    def _received(self, share: Share) -> Received:
        before = self._source.skipped
        self._source.prefetch(share.ahead)
        if self._transform is None:
            batch = self._source.batch(share.rows)
        else:
            samples = self._source.read(share.rows)
            if share.size is not None:
                samples = [{**sample, SIZE: share.size} for sample in samples]
            batch = collate(self._transformed(samples, share))
        return Received(batch, self._source.skipped - before)

    def _transformed(self, samples: list[Sample], share: Share) -> list[Sample]:
        assert self._transform is not None
        here = get_worker_info() is None  # in the training process, whose own draws are not to be disturbed
        states = (torch.get_rng_state(), random.getstate()) if here else None
        done = []
        for sample, position in zip(samples, share.positions.tolist(), strict=True):
            seed = hashed("transform", self._seed, share.epoch, position)
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            given = self._transform(sample)
            if not isinstance(given, Mapping):
                raise ConfigError(f"transform gave {shown(given)}; expected a dict of columns")
            done.append(given)
        if states is not None:
            torch.set_rng_state(states[0])
            random.setstate(states[1])
        return done
