"""What words mean, and which kinds of a thing there are: the nouns of WordNet 3.0, by sense.

A word has several senses ("gun": the weapon, the gas pedal, a hired killer), and kinds and synonyms are those of one
of them. Persons and places with names of their own are left out. ``jobs/make_dictionary.py`` makes the two tables in
``wordnet/``, which are read as columns: nothing of them becomes a Python object before it is asked for.

    synsets.parquet   a row a sense: id (WordNet's number, of data.noun), words, gloss, hypernyms (rows of this table)
    words.parquet     a row a word in the normal form, sorted: word, senses (rows of synsets, the most frequent first)

WordNet 3.0, Copyright 2006 by Princeton University; its licence is beside the tables.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.concepts.normal import normal

FOLDER = Path(__file__).with_name("wordnet")
SYNSETS, WORDS, NOTICE = "synsets.parquet", "words.parquet", "LICENSE.txt"


@dataclass(frozen=True)
class Sense:
    """One meaning of a word. ``id`` is WordNet's ("n02121620"), ``words`` are all that have this meaning."""

    row: int
    id: str
    words: tuple[str, ...]
    gloss: str


class Dictionary:
    """Reads the tables of a *folder*. Raises ``OSError`` where they are not there."""

    def __init__(self, folder: Path = FOLDER):
        self._folder = folder
        self._words = _read(folder / WORDS, ["word", "senses"])
        self._keys = self._words["word"]

    def senses(self, word: str) -> list[Sense]:
        """Return what *word* may mean, the most frequent sense first; nothing for a word that is not in it."""
        key = normal(word)
        low, high = 0, len(self._keys)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._keys[middle].as_py() < key else (low, middle)
        if low == len(self._keys) or self._keys[low].as_py() != key:
            return []
        return [self._sense(row) for row in self._words["senses"][low].as_py()]

    def sense(self, id: str) -> Sense:
        """Return the sense of WordNet's *id*, such as an ImageNet class's "n02123045". Raises ``KeyError``."""
        number = int(id.removeprefix("n")) if id.removeprefix("n").isdecimal() else -1
        row = int(np.searchsorted(self._ids, number))
        if row == len(self._ids) or self._ids[row] != number:
            raise KeyError(f"{id} is no noun of the dictionary")
        return self._sense(row)

    def hypernyms(self, sense: Sense) -> list[Sense]:
        """Return what *sense* is directly a kind of."""
        return [self._sense(row) for row in self._parents(sense.row)]

    def hyponyms(self, sense: Sense) -> list[Sense]:
        """Return the direct kinds of *sense*."""
        return [self._sense(row) for row in self._children(sense.row)]

    def kinds(self, sense: Sense) -> list[str]:
        """Return the words for all kinds of *sense*, kinds of kinds too, nearest first, each once."""
        words = [word for row in self._beyond(sense.row, self._children) for word in self._sense(row).words]
        return _once(words, sense.words)

    def siblings(self, sense: Sense) -> list[str]:
        """Return the words for the other direct kinds of what *sense* is a kind of."""
        rows = [row for parent in self._parents(sense.row) for row in self._children(parent) if row != sense.row]
        return _once((word for row in rows for word in self._sense(row).words), sense.words)

    def is_kind(self, sense: Sense, of: Sense) -> bool:
        """Tell whether *sense* is *of* or a kind of it."""
        return sense == of or of.row in self._beyond(sense.row, self._parents)

    def rows_below(self, sense: Sense) -> frozenset[int]:
        """Return the rows of *sense* and of all its kinds."""
        return frozenset((sense.row, *self._beyond(sense.row, self._children)))

    def rows_above(self, sense: Sense) -> frozenset[int]:
        """Return the rows of *sense* and of all that it is a kind of."""
        return frozenset((sense.row, *self._beyond(sense.row, self._parents)))

    def _beyond(self, row: int, step: Callable[[int], list[int]]) -> Iterator[int]:
        """Yield what is reached from *row* by *step*, again and again, nearest first, each row once."""
        level, seen = [row], {row}
        while level:
            level = [*dict.fromkeys(other for one in level for other in step(one) if other not in seen)]
            seen.update(level)
            yield from level

    def _sense(self, row: int) -> Sense:
        id, words = int(self._ids[row]), self._synsets["words"][row].as_py()
        return Sense(row, f"n{id:08d}", tuple(words), self._glosses[row].as_py())

    def _parents(self, row: int) -> list[int]:
        starts, parents = self._hypernyms
        above: list[int] = parents[starts[row] : starts[row + 1]].tolist()
        return above

    def _children(self, row: int) -> list[int]:
        children, parents = self._hyponyms
        # In the dtype of the table, all of which would be cast to another.
        start, stop = np.searchsorted(parents, np.array([row, row + 1], parents.dtype))
        below: list[int] = children[start:stop].tolist()
        return below

    @cached_property
    def _synsets(self) -> dict[str, pa.Array]:
        return _read(self._folder / SYNSETS, ["id", "words", "hypernyms"])

    @cached_property
    def _glosses(self) -> pa.Array:
        return _read(self._folder / SYNSETS, ["gloss"])["gloss"]

    @cached_property
    def _ids(self) -> np.ndarray:
        return _numbers(self._synsets["id"])

    @cached_property
    def _hypernyms(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each row's hypernyms begin, and all of them."""
        lists = self._synsets["hypernyms"]
        return _numbers(lists.offsets), _numbers(lists.values)

    @cached_property
    def _hyponyms(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of child and parent, by parent, then child."""
        starts, parents = self._hypernyms
        children = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        order = np.argsort(parents, kind="stable")
        return children[order], parents[order]


@cache
def dictionary() -> Dictionary:
    """Return the dictionary that ships with Lacuna."""
    return Dictionary()


def _read(path: Path, columns: list[str]) -> dict[str, pa.Array]:
    with pq.ParquetFile(path) as file:
        table = file.read(columns=columns, use_threads=False)
    return {name: table[name].combine_chunks() for name in columns}


def _numbers(array: pa.Array) -> np.ndarray:
    """Return an array of int32 as it lies in memory (``to_numpy`` would import pandas where that is installed)."""
    return np.frombuffer(array.buffers()[1], np.int32, len(array), array.offset * 4)


def _once(words: Iterable[str], but: Iterable[str]) -> list[str]:
    """Return *words* in their order, each in one writing, without *but*."""
    by_key = {normal(word): word for word in reversed([*words])}
    for word in but:
        by_key.pop(normal(word), None)
    return [*reversed(by_key.values())]
