"""The words that a sweep may draw: the vocabulary that ships with Lacuna, a file, or what prompts say."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pipeline.concepts.normal import Kind, normal, pieces
from pipeline.config.concepts import check_word
from pipeline.config.problem import Problem
from pipeline.errors import ConfigError


def read_vocabulary(path: Path) -> list[str]:
    """Return the words of a file, a word or a phrase a line, each once; lines that begin with "#" are no words.

    Raises ``ConfigError`` for a file that cannot be read, is not UTF-8, has no words or has lines that no concept could
    be called by.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError(f"words.vocabulary: {path}: {why}; expected a text file with a word a line") from error
    words = []
    for number, line in enumerate(lines, 1):
        if (word := line.strip()) and not line.startswith("#"):
            words.append(word)
            try:
                check_word(f"line {number}", word)
            except Problem as problem:
                raise ConfigError(f"words.vocabulary: {path}: {problem}") from None
    words = _once(words)
    if not words:
        raise ConfigError(f"words.vocabulary: {path}: has no words; expected a word a line")
    return words


def words_of_prompts(prompts: Iterable[str], least: int = 1) -> list[str]:
    """Return the words of *prompts*, the most frequent first, that are in at least *least* of them.

    A word is a run of letters of three or more in the normal form, or a character of a script without blanks.
    """
    counts: Counter[str] = Counter()
    for prompt in prompts:
        counts.update({piece.text for piece in pieces(prompt) if _is_word(piece.text, piece.kind)})
    return [word for word, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if number >= least]


def _is_word(text: str, kind: Kind) -> bool:
    return (kind is Kind.letters and len(text) >= 3) or (kind is Kind.single and text.isalpha())


def _once(words: Iterable[str]) -> list[str]:
    by_key: dict[str, str] = {}
    for word in words:
        if key := normal(word):
            by_key.setdefault(key, word)
    return list(by_key.values())
