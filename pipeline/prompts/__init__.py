"""From prompts to a plan: sources, their order, and the samples of every shard with keys and seeds."""

from pipeline.prompts.plan import Plan, PlanSummary, count
from pipeline.prompts.sample import PlannedShard, Sample, batches, further_seed, unplanned
from pipeline.prompts.source import Looked, RowSource
from pipeline.prompts.sources import open_source

__all__ = [
    "Looked",
    "Plan",
    "PlanSummary",
    "PlannedShard",
    "RowSource",
    "Sample",
    "batches",
    "count",
    "further_seed",
    "open_source",
    "unplanned",
]
