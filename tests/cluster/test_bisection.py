"""The search for guilty samples: it finds them, blames nobody else, and takes few probes."""

import math
import random

import pytest

from pipeline.cluster.bisection import CONFIRMATIONS, Bisection


def search(samples: dict[str, int], guilty: set[str], most: int = 10_000) -> tuple[list[str], int, int]:
    """Run a search in which probes of a guilty sample fail; return the blamed, the probes and the failed ones."""
    bisection = Bisection(samples)
    probes = failures = 0
    while bisection.group is not None:
        assert set(bisection.group) <= set(samples)
        assert len(set(bisection.group)) == len(bisection.group) > 0
        probes += 1
        assert probes < most
        if guilty & set(bisection.group):
            failures += 1
            bisection.failed()
        else:
            bisection.passed()
    return bisection.blamed, probes, failures


def shard(size: int, repetitions: int = 1) -> dict[str, int]:
    return {f"{i:05d}": i // repetitions for i in range(size)}


@pytest.mark.parametrize("size", [2, 3, 5, 32, 1000])
def test_every_single_culprit_is_found(size: int) -> None:
    samples = shard(size)
    for guilty in random.Random(0).sample(sorted(samples), min(size, 40)):
        blamed, probes, _ = search(samples, {guilty})
        assert blamed == [guilty]
        assert probes <= math.ceil(math.log2(size)) + CONFIRMATIONS + 1


def test_a_shard_of_one_sample() -> None:
    assert search(shard(1), {"00000"})[0] == ["00000"]
    assert search(shard(1), set())[0] == []


def test_the_guilty_prompts_repetitions_are_found_in_the_same_search() -> None:
    samples = shard(64, repetitions=4)
    blamed, probes, _ = search(samples, {"00020", "00021", "00022", "00023"})
    assert sorted(blamed) == ["00020", "00021", "00022", "00023"]
    assert probes < 25


def test_a_guilty_repetition_does_not_take_its_innocent_siblings_along() -> None:
    blamed, _, _ = search(shard(64, repetitions=4), {"00021"})
    assert blamed == ["00021"]


def test_nobody_is_blamed_where_everything_fails() -> None:
    samples = shard(32)
    assert search(samples, set(samples))[0] == []


def test_nobody_is_blamed_where_nothing_fails() -> None:
    blamed, probes, _ = search(shard(1024), set())
    assert blamed == []
    assert probes == 11


def test_two_culprits_one_after_the_other() -> None:
    samples = shard(100)
    guilty = {"00013", "00077"}
    found: list[str] = []
    for _ in guilty:
        rest = {key: prompt for key, prompt in samples.items() if key not in found}
        found += search(rest, guilty - set(found))[0]
    assert set(found) == guilty


def test_stray_failures_blame_nobody_who_is_innocent() -> None:
    """One probe in ten dies of something else: the innocent are blamed at most as often as such deaths coincide."""
    rng = random.Random(1)
    wrongly = 0
    for _ in range(300):
        bisection = Bisection(shard(64))
        strays = 0
        while bisection.group is not None:
            if strays == 0 and rng.random() < 0.3:
                strays += 1
                bisection.failed()
            else:
                bisection.passed()
        wrongly += len(bisection.blamed)
    assert wrongly == 0
