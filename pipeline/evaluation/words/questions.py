"""What is drawn of a word: the prompts of a sweep, each with a seed of its own, so that no picture depends on the rest.

A question is a word and a number. Its prompt is one of ``TEMPLATES``, by turns; its seed comes from both. So sweeps of
other lists, other vocabularies and other rounds ask the same question in the same words, and share its picture.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.prompts.seeds import hashed

TEMPLATES = ("{}", "a photo of {}")
ARTICLES = frozenset({"a", "an", "the", "some", "two", "three", "many"})


@dataclass(frozen=True, order=True)
class Question:
    """Picture *number* (from 0) of *word*."""

    word: str
    number: int

    @property
    def prompt(self) -> str:
        return TEMPLATES[self.number % len(TEMPLATES)].format(with_article(self.word))

    @property
    def seed(self) -> int:
        return hashed("word", self.word, self.number)


def with_article(word: str) -> str:
    """Return *word* as it stands in a prompt: with an article, unless it brings one ("a war", "two cats")."""
    first = word.split()[0].casefold()
    if first in ARTICLES or not first[0].isalpha() or not first.isascii():
        return word
    return f"{'an' if first[0] in 'aeiou' else 'a'} {word}"


def without_article(word: str) -> str:
    """Return *word* as it is looked for in prompts: without the article that it may bring."""
    first, _, rest = word.partition(" ")
    return rest if rest and first.casefold() in ARTICLES else word


def prompts_file(questions: Iterable[Question]) -> bytes:
    """Return *questions* as a source of prompts, in parquet, in their order of words and numbers."""
    asked = sorted(questions)
    table = pa.table(
        {
            "prompt": pa.array([question.prompt for question in asked], pa.string()),
            "seed": pa.array([question.seed for question in asked], pa.int64()),
            "word": pa.array([question.word for question in asked], pa.string()),
            "number": pa.array([question.number for question in asked], pa.int32()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def read_questions(data: bytes) -> list[Question]:
    """Return the questions of a file that ``prompts_file`` made."""
    table = pq.read_table(pa.BufferReader(data), columns=["word", "number"])
    return [Question(row["word"], row["number"]) for row in table.to_pylist()]
