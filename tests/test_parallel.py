"""Many requests at once: in order, few held, and errors come out."""

import threading

import pytest

from pipeline.parallel import in_parallel


def test_answers_come_in_order_and_requests_run_together():
    together = threading.Barrier(4, timeout=10)

    def answer(item):
        if item < 4:
            together.wait()  # never passed by one thread alone
        return item * item

    assert list(in_parallel(answer, range(50), threads=4)) == [i * i for i in range(50)]
    assert list(in_parallel(answer, [])) == []


def test_no_more_are_asked_for_than_two_a_thread():
    asked = []
    answers = in_parallel(lambda item: asked.append(item) or item, range(100), threads=2)
    for i in range(10):
        assert next(answers) == i
        assert len(asked) <= i + 4
    answers.close()


def test_what_is_raised_comes_out_in_its_place_and_nothing_goes_on():
    asked = []

    def answer(item):
        asked.append(item)
        if item == 3:
            raise FileNotFoundError("third")
        return item

    answers = in_parallel(answer, range(1000), threads=2)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FileNotFoundError, match="third"):
        next(answers)
    assert len(asked) < 20
