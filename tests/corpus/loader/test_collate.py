"""Batches: the memory of one is used again, and never while anybody has any of it."""

import pytest
import torch

from pipeline.corpus.loader.collate import collate, new_batch

HOLDS = {
    "the tensor": lambda batch: batch,
    "a part of it": lambda batch: batch[1:, 2],
    "an array": lambda batch: batch.numpy(),
    "a part of an array": lambda batch: batch.numpy()[1:][0],
    "its storage": lambda batch: batch.untyped_storage(),
    "another library's": lambda batch: torch.from_dlpack(batch),
}


@pytest.mark.parametrize("kind", HOLDS)
def test_what_is_held_of_a_batch_stays_as_it_is(kind):
    batch = new_batch((4, 5, 6), torch.uint8)
    batch[:] = 7
    held = HOLDS[kind](batch)
    del batch
    for _ in range(3):
        new_batch((4, 5, 6), torch.uint8)[:] = 8
    assert set(torch.as_tensor(held).flatten().tolist() if kind != "its storage" else held.tolist()) == {7}


def test_the_memory_of_a_batch_that_nobody_has_is_used_again():
    first = new_batch((7, 11), torch.float32)
    place = first.data_ptr()
    second = new_batch((7, 11), torch.float32)
    assert second.data_ptr() != place
    del first
    third = new_batch((11, 7), torch.float32)
    assert (third.data_ptr(), third.shape, third.dtype) == (place, (11, 7), torch.float32)


def test_a_batch_of_another_size_takes_memory_of_its_own():
    first = new_batch((3, 3), torch.uint8)
    del first
    second = new_batch((3, 4), torch.uint8)
    assert second.shape == (3, 4)
    second[:] = 1
    assert int(second.sum()) == 12


def test_columns_are_stacked_as_what_they_are():
    batch = collate([{"image": torch.full((2, 2), n), "number": n, "text": str(n)} for n in range(3)])
    assert batch["image"].tolist() == [[[n, n], [n, n]] for n in range(3)]
    assert (batch["image"].dtype, batch["number"].tolist(), batch["text"]) == (torch.int64, [0, 1, 2], ["0", "1", "2"])
