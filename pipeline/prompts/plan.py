"""The plan: which samples exist, in which shard, with which key and seed. Fixed before work starts.

It is arithmetic over a source: but for a look at its rows, nothing is read save the rows of the shard asked for.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pyarrow as pa

from pipeline.config.identity import Identity, identity
from pipeline.config.problem import Problem
from pipeline.config.schema import BadRows, Config, PromptsConfig
from pipeline.config.validate import MOST_SHARDS
from pipeline.errors import ConfigError
from pipeline.prompts.order import BLOCK, WINDOW, Order
from pipeline.prompts.passing import joined
from pipeline.prompts.sample import PlannedShard, Sample
from pipeline.prompts.seeds import sample_seed
from pipeline.prompts.source import Looked, Row, Rows, RowSource
from pipeline.version import this_version


@dataclass(frozen=True, kw_only=True)
class PlanSummary:
    """What a run records of its plan, and checks. ``column_schema`` are the pass-through columns; ``looked`` is what
    looking at the rows has shown; ``lacuna`` is the version that planned (``pipeline.version``)."""

    identity: Identity
    prompts: int
    samples: int
    shards: int
    samples_per_shard: int
    column_schema: pa.Schema
    looked: Looked
    lacuna: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sample i is picture ``i % images_per_prompt`` of the row at position ``i // images_per_prompt`` of the order.

    May be pickled where its source may. Not for several threads at once: it keeps the rows last read.
    """

    source: RowSource
    looked: Looked
    identity: Identity
    order: Order
    images_per_prompt: int
    samples_per_shard: int
    seed: int
    size: tuple[int, int]
    negative_prompt: str
    _blocks: "OrderedDict[int, Rows]" = field(default_factory=OrderedDict, repr=False, compare=False)

    @classmethod
    def build(cls, config: Config, source: RowSource) -> "Plan":
        """Plan *config* over *source*.

        Raises ``ConfigError`` for no prompts, for more shards than keys can name, and for rows that cannot be drawn,
        as far as they are looked at: for any under ``bad_rows: fail``, for all under ``skip``.
        """
        rows = rows_used(config.prompts, source)
        if rows == 0:
            raise ConfigError(f"prompts.source: {config.prompts.source} has no prompts")
        width, height = config.generation.pixels
        looked = source.look()
        _check_rows(looked, rows, config.prompts.bad_rows)
        plan = cls(
            source=source,
            looked=looked,
            identity=identity(config, source.fingerprint),
            order=Order(rows, config.prompts.shuffle, config.seed),
            images_per_prompt=config.prompts.images_per_prompt,
            samples_per_shard=config.output.samples_per_shard,
            seed=config.seed,
            size=(width, height),
            negative_prompt=config.generation.negative_prompt,
        )
        if plan.shards > MOST_SHARDS:
            raise Problem(
                "output.samples_per_shard",
                f"{plan.samples_per_shard:,} makes {plan.shards:,} shards of {plan.samples:,} images; "
                f"keys can name {MOST_SHARDS:,}, so expected at least {-(-plan.samples // MOST_SHARDS):,}",
            )
        return plan

    @property
    def prompts(self) -> int:
        """Rows of the source that are used."""
        return self.order.rows

    @property
    def samples(self) -> int:
        return self.order.rows * self.images_per_prompt

    @property
    def shards(self) -> int:
        return -(-self.samples // self.samples_per_shard)

    @property
    def column_schema(self) -> pa.Schema:
        return self.source.schema

    def summary(self) -> PlanSummary:
        """Return what a run records of this plan."""
        return PlanSummary(
            identity=self.identity,
            prompts=self.prompts,
            samples=self.samples,
            shards=self.shards,
            samples_per_shard=self.samples_per_shard,
            column_schema=self.column_schema,
            looked=self.looked,
            lacuna=this_version(),
        )

    def shard(self, index: int) -> PlannedShard:
        """Return shard *index* with its samples.

        Raises ``IndexError`` for one that the plan does not have, and ``ConfigError`` where the source cannot be read.
        """
        if not 0 <= index < self.shards:
            raise IndexError(f"shard {index} of a plan with {self.shards}")
        start = index * self.samples_per_shard
        indices = range(start, min(start + self.samples_per_shard, self.samples))
        first, last = indices[0] // self.images_per_prompt, indices[-1] // self.images_per_prompt
        numbers = [self.order.row(position) for position in range(first, last + 1)]
        rows = self._rows(numbers)
        places = [i // self.images_per_prompt - first for i in indices]
        samples = [self._sample(i, numbers[place], rows.rows[place]) for i, place in zip(indices, places, strict=True)]
        return PlannedShard(index, tuple(samples), rows.columns.take(places))

    def where(self, key: str) -> str:
        """Name the row of the source from which the sample *key* is made."""
        index = int(key[:-5]) * self.samples_per_shard + int(key[-5:])
        return self.source.where(self.order.row(index // self.images_per_prompt))

    def _sample(self, index: int, number: int, row: Row) -> Sample:
        shard, place = divmod(index, self.samples_per_shard)
        repetition = index % self.images_per_prompt
        width, height = row.size or self.size
        return Sample(
            index=index,
            key=f"{shard:06d}{place:05d}",
            shard=shard,
            prompt=row.prompt,
            negative_prompt=self.negative_prompt if row.negative_prompt is None else row.negative_prompt,
            seed=sample_seed(self.seed, number, repetition, row.seed),
            width=width,
            height=height,
            prompt_index=number,
            repetition=repetition,
            fault=row.fault,
        )

    def _rows(self, numbers: list[int]) -> Rows:
        if not self.order.shuffle:
            return self.source.read(numbers[0], numbers[-1] + 1)
        # A shard may span two windows; keeping both means that following shards find their rows read.
        used = sorted({number // BLOCK for number in numbers})
        missing = [block for block in used if block not in self._blocks]
        ranges = [range(block * BLOCK, min((block + 1) * BLOCK, self.prompts)) for block in missing]
        self._blocks.update(zip(missing, self.source.read_blocks(ranges), strict=True))
        rows = [self._blocks[number // BLOCK].rows[number % BLOCK] for number in numbers]
        starts = dict(zip(used, accumulate((len(self._blocks[block].rows) for block in used), initial=0), strict=False))
        together = joined([self._blocks[block] for block in used], self.source.schema).columns
        columns = together.take([starts[number // BLOCK] + number % BLOCK for number in numbers])
        self._forget(number // BLOCK for number in numbers)
        return Rows(rows, columns)

    def _forget(self, used: Iterable[int]) -> None:
        for block in dict.fromkeys(used):
            self._blocks.move_to_end(block)
        while len(self._blocks) > 2 * WINDOW:
            self._blocks.popitem(last=False)


def rows_used(prompts: PromptsConfig, source: RowSource) -> int:
    """Return how many rows of *source* are drawn."""
    return len(source) if prompts.limit is None else min(len(source), prompts.limit)


def count(prompts: PromptsConfig, source: RowSource) -> int:
    """Return how many pictures there are to draw of *source*, without planning them."""
    return rows_used(prompts, source) * prompts.images_per_prompt


def _check_rows(looked: Looked, rows: int, bad_rows: BadRows) -> None:
    if not looked.bad or (bad_rows is BadRows.skip and looked.bad < looked.rows):
        return
    assert looked.first is not None
    count = f"{looked.bad:,} of {looked.rows:,} rows cannot be drawn"
    if looked.rows < rows:
        count = f"{looked.bad:,} of {looked.rows:,} rows looked at, of {rows:,}, cannot be drawn"
    what = "mend them, or leave them out with `prompts.bad_rows: skip`; what a column means `prompts.columns` says"
    if bad_rows is BadRows.skip:
        what = "expected some that can; what a column means `prompts.columns` says"
    raise ConfigError(f"prompts.source: {looked.first[1]}; {count}: {what}")
