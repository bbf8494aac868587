"""A set of shards that takes a byte for each, in the order of their numbers: of a million, Python's own takes 60 MB."""

from collections.abc import Iterator


class ShardSet:
    """Some of the shards from 0 to *size* - 1."""

    def __init__(self, size: int):
        self._flags = bytearray(size)
        self._number = 0
        self._first = 0  # there is none before it

    def __len__(self) -> int:
        return self._number

    def __contains__(self, shard: object) -> bool:
        return isinstance(shard, int) and self._flags[shard] == 1

    def __iter__(self) -> Iterator[int]:
        shard = self._flags.find(1, self._first)
        while shard >= 0:
            yield shard
            shard = self._flags.find(1, shard + 1)

    def add(self, shard: int) -> None:
        self._number += 1 - self._flags[shard]
        self._flags[shard] = 1
        self._first = min(self._first, shard)

    def discard(self, shard: int) -> None:
        self._number -= self._flags[shard]
        self._flags[shard] = 0

    def pop_first(self) -> int:
        """Take the lowest out; ``KeyError`` where there is none."""
        shard = self._flags.find(1, self._first)
        if shard < 0:
            raise KeyError("no shard is left")
        self.discard(shard)
        self._first = shard
        return shard
