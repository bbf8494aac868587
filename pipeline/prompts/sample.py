"""The pictures of a plan as plain data, and their grouping into batches. Nothing here reads or draws."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.prompts.seeds import hashed


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One picture to be made; width and height are pixels. One with a ``fault`` cannot be, and fails for that reason.

    ``index`` counts the samples of the corpus, ``prompt_index`` the rows of the source, ``repetition`` the pictures of
    one row. ``key`` is six digits of shard and five of the place in it, unique over the corpus.
    """

    index: int
    key: str
    shard: int
    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    prompt_index: int
    repetition: int
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """All that a worker needs to make one shard. ``columns`` pass through to the manifest, a row for each sample."""

    index: int
    samples: tuple[Sample, ...]
    columns: pa.Table = field(default_factory=lambda: pa.table({}), hash=False)


def unplanned(asked: Iterable[tuple[str, int]], width: int, height: int) -> list[Sample]:
    """Return samples of *asked*, pairs of prompt and seed, that belong to no plan: to try and to measure with."""
    return [
        Sample(
            index=i, key=f"{i:011d}", shard=0, prompt=prompt, negative_prompt="", seed=seed, width=width, height=height,
            prompt_index=i, repetition=0,
        )
        for i, (prompt, seed) in enumerate(asked)
    ]  # fmt: skip


def batches(
    samples: Sequence[Sample], batch_size: int, length: Callable[[Sample], int] = lambda sample: 1
) -> list[tuple[Sample, ...]]:
    """Cut *samples* into batches of at most *batch_size*, in all of which but the last of each kind so many are.

    What a batch must share is the picture's size and the *length* of the texts: those that do stand in their own order,
    wherever they stand among others. Sizes come in the order of their first sample, of each the shorter texts first.
    Which samples share a batch changes their bytes a little, so this rule is part of a corpus's identity.
    """
    alike: dict[tuple[int, int], dict[int, list[Sample]]] = {}
    for sample in samples:
        alike.setdefault((sample.width, sample.height), {}).setdefault(length(sample), []).append(sample)
    kinds = [tuple(of_length) for lengths in alike.values() for _, of_length in sorted(lengths.items())]
    return [kind[i : i + batch_size] for kind in kinds for i in range(0, len(kind), batch_size)]


def further_seed(sample: Sample, attempt: int) -> int:
    """Return the seed of the *attempt*-th try at a sample; attempt 0 is the planned one."""
    return sample.seed if attempt == 0 else hashed("attempt", sample.seed, attempt)
