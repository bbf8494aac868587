"""Which of many words are in a text, and where: a trie over the normal form, exact and the same for every encoder.

A word is found where it stands between word borders (``normal``). A step down the trie is a piece, so that a text costs
a look-up a piece, however many words are listed.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from pipeline.concepts.normal import Gap, Kind, Piece, parted, pieces, readings, steps, texts_of_pieces

T = TypeVar("T")
END = ""  # the key of what ends at a node; no step is empty


class Found(NamedTuple, Generic[T]):
    """Characters ``start:stop`` of a text that are a listed word, and what that word was listed with."""

    start: int
    stop: int
    value: T


class Trie(Generic[T]):
    """Listed words, each with a value of one's own. A word may be listed several times."""

    def __init__(self, words: Iterable[tuple[str, T]] = ()):
        self._root: dict[str, Any] = {}
        self._longest = 0  # characters of a step
        for word, value in words:
            self.add(word, value)

    def add(self, word: str, value: T) -> None:
        """List *word*. Raises ``ValueError`` where it has no letter, digit or sign, and could never be found."""
        keys = steps(word)
        if not keys:
            raise ValueError(f"{word!r} has no letter, digit or sign")
        node = self._root
        for key in keys:
            node = node.setdefault(key, {})
            self._longest = max(self._longest, len(key))
        node.setdefault(END, []).append(value)

    def find(self, text: str) -> list[Found[T]]:
        """Return every listed word in *text*, those inside longer ones too, in the order in which they begin."""
        plain = texts_of_pieces(text)
        if plain is None:
            starts: Iterable[int] = range(len(parts := pieces(text)))
        elif starts := [i for i, part in enumerate(plain) if part in self._root]:
            parts = pieces(text)
        found = []
        for i in starts:
            for j, values in self._walk(self._root, parts, i):
                start, stop = parts[i].start, parts[j].stop
                found += [Found(start, stop, value) for value in values]
        return found

    def _walk(self, node: dict[str, Any], parts: list[Piece], i: int) -> Iterator[tuple[int, list[T]]]:
        """Yield the last pieces of words that go on from *node* with piece *i*, and their values."""
        blanks: tuple[str, ...] = ("",)
        if node is not self._root:
            blanks = ("", " ") if parts[i].gap is Gap.soft else (" ",) if parted(parts[i - 1], parts[i]) else ("",)
        for j, text in self._runs(parts, i):
            for reading in readings(text):
                for blank in blanks:
                    child = node.get(blank + reading)
                    if child is None:
                        continue
                    if END in child:
                        yield j, child[END]
                    if j + 1 < len(parts):
                        yield from self._walk(child, parts, j + 1)

    def _runs(self, parts: list[Piece], i: int) -> Iterator[tuple[int, str]]:
        """Yield piece *i*, then it joined across soft gaps with more and more of those that follow."""
        text, kind = parts[i].text, parts[i].kind
        yield i, text
        for j in range(i + 1, len(parts)):
            if parts[j].gap is not Gap.soft or parts[j].kind is not kind or kind is Kind.single:
                return
            text += parts[j].text
            if len(text) > self._longest:
                return
            yield j, text
