"""The plan: which samples exist, in which shard, with which key and seed. Fixed before work starts.

It is arithmetic over a source: nothing but the rows of the shard that is asked for is ever read.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.config.identity import Identity, identity
from pipeline.config.problem import Problem
from pipeline.config.schema import Config
from pipeline.config.validate import MOST_SHARDS
from pipeline.errors import ConfigError
from pipeline.prompts.order import BLOCK, WINDOW, Order
from pipeline.prompts.sample import PlannedShard, Sample
from pipeline.prompts.seeds import sample_seed
from pipeline.prompts.source import Row, RowError, Source, Wishes
from pipeline.version import this_version


@dataclass(frozen=True, kw_only=True)
class PlanSummary:
    """What a run records of its plan, and checks. ``column_schema`` are the pass-through columns; ``wishes`` are of the
    rows that are used; ``lacuna`` is the version that planned (``pipeline.version``)."""

    identity: Identity
    prompts: int
    samples: int
    shards: int
    samples_per_shard: int
    column_schema: pa.Schema
    wishes: Wishes
    lacuna: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sample i is picture ``i % images_per_prompt`` of the row at position ``i // images_per_prompt`` of the order.

    May be pickled where its source may. Not for several threads at once: it keeps the rows last read.
    """

    source: Source
    identity: Identity
    order: Order
    images_per_prompt: int
    samples_per_shard: int
    seed: int
    size: tuple[int, int]
    negative_prompt: str
    _blocks: "OrderedDict[int, list[Row | RowError]]" = field(default_factory=OrderedDict, repr=False, compare=False)

    @classmethod
    def build(cls, config: Config, source: Source) -> "Plan":
        """Plan *config* over *source*. Raises ``ConfigError`` for no prompts, or more shards than keys can name."""
        rows = len(source) if config.prompts.limit is None else min(len(source), config.prompts.limit)
        if rows == 0:
            raise ConfigError(f"prompts.source: {config.prompts.source} has no prompts")
        width, height = config.generation.size
        plan = cls(
            source=source,
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
            wishes=self.source.wishes.of_first(self.prompts),
            lacuna=this_version(),
        )

    def shard(self, index: int) -> PlannedShard:
        """Return shard *index* with its samples.

        Raises ``IndexError`` for one that the plan does not have, ``RowError`` for one with a row that cannot be used,
        and another ``ConfigError`` where the source cannot be read.
        """
        if not 0 <= index < self.shards:
            raise IndexError(f"shard {index} of a plan with {self.shards}")
        start = index * self.samples_per_shard
        return PlannedShard(
            index, tuple(self._samples(range(start, min(start + self.samples_per_shard, self.samples))))
        )

    def _samples(self, indices: range) -> Iterator[Sample]:
        first, last = indices[0] // self.images_per_prompt, indices[-1] // self.images_per_prompt
        numbers = [self.order.row(position) for position in range(first, last + 1)]
        rows = self._rows(numbers)
        for index in indices:
            position, repetition = divmod(index, self.images_per_prompt)
            number, row = numbers[position - first], rows[position - first]
            shard, place = divmod(index, self.samples_per_shard)
            width, height = row.size or self.size
            yield Sample(
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
                columns=row.columns,
            )

    def _rows(self, numbers: list[int]) -> list[Row]:
        if not self.order.shuffle:
            return self.source.read(numbers[0], numbers[-1] + 1)
        # A shard may span two windows; keeping both means that following shards find their rows read.
        missing = sorted({number // BLOCK for number in numbers} - self._blocks.keys())
        ranges = [range(block * BLOCK, min((block + 1) * BLOCK, self.prompts)) for block in missing]
        self._blocks.update(zip(missing, self.source.read_blocks(ranges), strict=True))
        # A row that cannot be used concerns only the shard that draws it, of the many that share its block.
        found = [self._blocks[number // BLOCK][number % BLOCK] for number in numbers]
        self._forget(number // BLOCK for number in numbers)
        rows: list[Row] = []
        for row in found:
            if isinstance(row, RowError):
                raise row.with_traceback(None)
            rows.append(row)
        return rows

    def _forget(self, used: Iterable[int]) -> None:
        for block in dict.fromkeys(used):
            self._blocks.move_to_end(block)
        while len(self._blocks) > 2 * WINDOW:
            self._blocks.popitem(last=False)
