"""Which batch ``auto`` settles on, of what was measured; and what is measured at all."""

import pytest
import torch

from pipeline.config.schema import ConceptConfig, ErasureConfig, StepConfig
from pipeline.erasure.recipe import active_methods
from pipeline.generation.batch import FLAT, LARGEST, NEAR, SPARE, STEPS, Timed, _seconds, evenly, soonest, time_sizes
from pipeline.models.load import load_model
from tests import tiny


def timed(*pace: float) -> list[Timed]:
    """Batches of 1, 2, 4, ... that draw so many pictures a second."""
    return [Timed(2**i, 2**i / per_second) for i, per_second in enumerate(pace)]


@pytest.mark.parametrize(
    ("pace", "size"),
    [
        ((100, 200, 400, 800, 1600, 3200), 16),  # not the largest: memory must have room for twice as much
        (
            (2.0, 2.35, 2.4, 2.41, 2.42, 2.42),
            2,
        ),  # a full device: what brings under 5 % more is not worth twice the batch
        ((1.0, 1.9, 2.35, 2.4, 2.41, 2.4), 4),
        ((2.0, 1.0, 0.5), 1),
        ((1.0, 1.06, 1.12, 1.18, 1.24), 8),  # each doubling by more than 5 %, and the last stands for twice the 8
        ((3.0,), 1),
        ((3.0, 5.0), 1),
    ],
)
def test_the_smallest_batch_near_the_best_throughput_is_taken(pace: tuple[float, ...], size: int) -> None:
    assert soonest(timed(*pace), [1 << 20]) == size


def test_what_a_shard_cannot_fill_is_no_gain() -> None:
    """40 pictures are two batches of 32, three of 16 or five of 8: the places drawn for nothing count."""
    full = timed(*[10.0] * 7)  # of 1 to 64, none faster than another
    assert soonest(full, [40]) == 1
    rising = timed(1.0, 2.0, 4.0, 8.0, 9.0, 9.2, 9.3)
    # Seconds for 40: 40, 20, 10, 5, 5.33, 6.96.
    assert soonest(rising, [40]) == 8
    assert soonest(rising, [1024]) == 16
    # Launches are all that it takes: ten pictures are drawn soonest in one batch of 16.
    assert soonest([Timed(2**i, 1.0) for i in range(6)], [10]) == 16


def test_of_several_sizes_each_has_batches_of_its_own() -> None:
    """A batch takes hardly longer than a picture: as large as a size has pictures, and no larger."""
    launches = [Timed(2**i, 1.0 + 2**i / 1000) for i in range(7)]
    assert soonest(launches, [64]) == 32
    assert soonest(launches, [8] * 8) == 8
    assert evenly([16] * 4, 32) == 16
    assert evenly([16, 40], 32) == 20
    assert evenly([1] * 5, 32) == 1


def test_the_order_of_what_was_measured_does_not_matter() -> None:
    found = timed(1.0, 1.9, 2.35, 2.4, 2.41, 2.4)
    assert soonest(found[::-1], [1000]) == soonest(found, [1000]) == 4


def test_sizes_are_doubled_until_memory_ends() -> None:
    asked: list[int] = []

    def seconds(size: int) -> float:
        asked.append(size)
        if size > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    found = time_sizes(seconds, SPARE * LARGEST)
    assert asked == [1, 2, 4, 8, 16, 32]
    assert found == [Timed(size, 1.0) for size in (1, 2, 4, 8, 16)]
    assert soonest(found, [1024]) == 8


def test_where_one_picture_does_not_fit_that_is_raised() -> None:
    def seconds(size: int) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        time_sizes(seconds, 16)


def test_a_fault_that_is_not_of_memory_is_not_taken_for_the_largest_size() -> None:
    def seconds(size: int) -> float:
        if size > 2:
            raise RuntimeError("a kernel that is not there")
        return 1.0

    with pytest.raises(RuntimeError, match="a kernel"):
        time_sizes(seconds, 16)


def test_doubling_ends_where_the_device_is_full_or_the_shard_has_no_more() -> None:
    assert [size for size, _ in time_sizes(lambda size: size / 3, 1024)] == [2**i for i in range(1 + FLAT)]
    # One doubling that brings nothing is no end: what comes after may.
    steps = {1: 1.0, 2: 2.0, 4: 2.0, 8: 4.0, 16: 8.0}
    assert [size for size, _ in time_sizes(steps.__getitem__, 64)] == [1, 2, 4, 8, 16]
    assert [size for size, _ in time_sizes(lambda size: 1.0, 64)] == [1, 2, 4, 8, 16, 32, 64]
    just = 1 + NEAR + 0.001
    assert len(time_sizes(lambda size: (2 / just) ** (size.bit_length() - 1), 64)) == 7


@pytest.mark.parametrize(
    ("pictures", "size"), [(1, 1), (10, 10), (32, 32), (33, 17), (40, 20), (64, 32), (65, 22), (1000, 32), (1024, 32)]
)
def test_on_a_cpu_batches_are_of_at_most_32_and_evenly_filled(pictures: int, size: int) -> None:
    assert evenly([pictures], 32) == size
    count = -(-pictures // 32)
    assert size <= 32
    assert -(-pictures // size) == count, "no more batches than of 32"
    assert count * size - pictures < count, "less than a place each is padding"


def test_what_is_timed_are_full_batches_of_the_size_asked_for_of_few_steps_all_erased(monkeypatch) -> None:
    concepts = [ConceptConfig(name="cat", anchor="dog")]
    erasure = ErasureConfig(concepts=concepts, recipe=[StepConfig(method="cease")])
    config = tiny.config(tiny.path(), erasure=erasure)
    config.generation.steps = 25
    model = load_model(config.model, torch.device("cpu"))
    family, shapes, rows = model.family, [], []
    decode, predict = family.decode, family.predict
    monkeypatch.setattr(family, "decode", lambda latents: shapes.append(tuple(latents.shape)) or decode(latents))
    monkeypatch.setattr(family, "predict", lambda latents, *rest: rows.append(len(latents)) or predict(latents, *rest))
    assert _seconds(config, model, 3, (40, 32)) > 0
    assert shapes == [(3, 4, 8, 10)] * 2
    assert rows[: STEPS + 1] == [6] * (STEPS + 1), "with guidance"
    assert len(rows) == 2 * STEPS
    assert active_methods(config, model), "there is something to erase"
