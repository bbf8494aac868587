"""How a plan's pictures fall into batches, and what padding costs: the last batch of each kind in a shard is filled up.

Nothing is drawn and no model is asked: how long a text is to its encoder tells whoever has loaded one.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.config.sections.generation import GenerationConfig, LongPrompts, PromptSyntax
from pipeline.prompts.plan import Plan
from pipeline.prompts.sample import Sample, batches

LOOKED_AT = 10_000  # pictures, or one shard, if that has more
SHARDS = 20  # at most: of a source that is shuffled each may read 16 row groups
MUCH = 0.1  # share of the drawing time, from which on the remedy is named

Size = tuple[int, int]  # width and height in pixels


class Batches(NamedTuple):
    """Of one size: how many pictures there are, and how many batches they take."""

    pictures: int
    batches: int


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How the pictures of ``looked`` of a plan's ``shards`` fall into batches, which have ``batch_size`` places."""

    batch_size: int
    sizes: dict[Size, Batches]
    looked: int
    shards: int

    @property
    def pictures(self) -> int:
        return sum(found.pictures for found in self.sizes.values())

    @property
    def batches(self) -> int:
        return sum(found.batches for found in self.sizes.values())

    @property
    def places(self) -> int:
        return self.batches * self.batch_size

    @property
    def padded(self) -> int:
        """Places without a picture."""
        return self.places - self.pictures

    @property
    def share(self) -> float:
        """The share of the drawing time that goes into padding, if a place takes as long as it has pixels."""
        return 1 - self.mean_pixels * self.pictures / (self._pixels * self.batch_size)

    @property
    def mean_pixels(self) -> float:
        """Of a picture."""
        return sum(found.pictures * w * h for (w, h), found in self.sizes.items()) / self.pictures

    def per_picture(self, size: Size) -> float:
        """Return how many batches of *size* take as long as all of these, a picture."""
        return self._pixels / (size[0] * size[1] * self.pictures)

    def line(self) -> str:
        """Tell it, as `lacuna plan` does."""
        kinds = "" if len(self.sizes) == 1 else f" in {len(self.sizes):,} sizes"
        said = f"{self.padded:,} of {self.places:,} places are padding, {100 * self.share:.3g} % of the drawing time"
        if self.looked < self.shards:
            said += f" (in {self.looked:,} of {self.shards:,} shards, which were looked at)"
        if self.share > MUCH:
            larger = "larger shards (output.samples_per_shard) or " if self.shards > 1 else ""
            said += f"; {larger}smaller batches (generation.batch_size) have less"
        return f"{self.batches:,} of {self.batch_size:,} pictures{kinds}: {said}"

    @property
    def _pixels(self) -> int:
        """Of one place of each batch."""
        return sum(found.batches * w * h for (w, h), found in self.sizes.items())


def batching(
    plan: Plan,
    batch_size: int,
    length: Callable[[Sample], int] | None = None,
    placed: Callable[[Sample], Sample] = lambda sample: sample,
) -> Batching:
    """Return how *plan* falls into batches: all of it, or shards spread over it where it has more than ``LOOKED_AT``
    pictures or ``SHARDS`` shards. Where all rows have one size and length it is all of it, and nothing is read.

    *length* is that of a sample's texts; None: all are of one. *placed* is a sample as it has its place in a batch.
    """
    if length is None and not {"size", "width", "height"} & plan.source.meaning.steers(plan.source.names).keys():
        full, rest = divmod(plan.samples, plan.samples_per_shard)
        count = full * -(-plan.samples_per_shard // batch_size) + -(-rest // batch_size)
        sizes = {plan.size: Batches(plan.samples, count)}
        return Batching(batch_size=batch_size, sizes=sizes, looked=plan.shards, shards=plan.shards)
    looked = _looked(plan)
    pictures: dict[Size, int] = defaultdict(int)
    counts: dict[Size, int] = defaultdict(int)
    for index in looked:
        samples = [placed(sample) for sample in plan.shard(index).samples]
        for batch in batches(samples, batch_size, length or (lambda sample: 1)):
            size = batch[0].width, batch[0].height
            pictures[size] += len(batch)
            counts[size] += 1
    sizes = {size: Batches(pictures[size], counts[size]) for size in pictures}
    return Batching(batch_size=batch_size, sizes=sizes, looked=len(looked), shards=plan.shards)


def of_one_length(generation: GenerationConfig) -> bool:
    """Are all texts of one length to their encoder, however they are read?"""
    return generation.long_prompts is LongPrompts.truncate and generation.prompt_syntax is PromptSyntax.plain


def _looked(plan: Plan) -> list[int]:
    """Return the shards to look at; of some only full ones, evenly spread."""
    count = min(SHARDS, -(-LOOKED_AT // plan.samples_per_shard))
    if plan.shards <= count:
        return list(range(plan.shards))
    return [place * (plan.shards - 2) // max(1, count - 1) for place in range(count)]
