"""Ratios of one interleaved run: what all contenders do is cut into slices, which take turns.

So a machine that is busy with other things for a while is so for all of them.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

SLICES = 8  # of a pass


def cpu_rates(contenders: Mapping[str, Callable[[], Iterator[int]]], total: int, rounds: int) -> dict[str, list[float]]:
    """Return, of each contender and round, samples per CPU second of a pass over *total* samples, of which it yields
    how many a batch has. A first round only warms up."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        passes = {name: contender() for name, contender in contenders.items()}
        seconds, seen = dict.fromkeys(passes, 0.0), dict.fromkeys(passes, 0)
        names = list(passes)
        for turn in range(1, SLICES + 1):
            names.append(names.pop(0))  # each of them once behind each other
            for name in names:
                began = time.process_time()
                for count in passes[name]:
                    seen[name] += count
                    if turn < SLICES and seen[name] >= total * turn / SLICES:
                        break
                seconds[name] += time.process_time() - began
        if number:
            for name in rates:
                rates[name].append(seen[name] / seconds[name])
    return rates


def medians(rates: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: round(statistics.median(all_), 1) for name, all_ in rates.items()}


def over(rates: Mapping[str, Sequence[float]], ours: str = "ours") -> dict[str, float]:
    """Return the median over the rounds of *ours* to each of the others."""
    return {
        name: round(statistics.median(a / b for a, b in zip(rates[ours], all_, strict=True)), 3)
        for name, all_ in rates.items()
        if name != ours
    }
