"""What a plan reads of a source of prompts: a length, random access by row, a fingerprint of its content.

A source is opened where the plan is made and nowhere else; workers get finished samples. It may be pickled.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from pipeline.config.problem import Problem, show
from pipeline.config.validate import check_size
from pipeline.prompts.meaning import Meaning

INVISIBLE = frozenset({"Cc", "Cf"})  # control and format characters, by Unicode's categories
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prompt. ``seed``, ``negative_prompt`` and ``size`` (width, height; pixels) are None where the run decides.

    ``fault`` says why the row cannot be drawn; its prompt is then what can be shown of it, perhaps nothing.
    """

    prompt: str
    seed: int | None = None
    negative_prompt: str | None = None
    size: tuple[int, int] | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Rows:
    """Rows and, as long as they are, the table of their pass-through columns, of the source's ``schema``."""

    rows: list[Row]
    columns: pa.Table


@dataclass(kw_only=True)
class Looked:
    """What looking at ``rows`` rows has shown: how many are ``bad``, and what the others ask for of their own.

    ``first`` is the first bad row's number, from 0, and its name and fault. ``sizes`` (width, height; pixels) tell the
    first row that asks for each, and how many do; ``negative`` is the first with a negative prompt. ``seeds`` and
    ``negatives`` count rows.
    """

    rows: int = 0
    bad: int = 0
    first: tuple[int, str] | None = None
    seeds: int = 0
    negatives: int = 0
    negative: str | None = None
    sizes: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)

    def add(self, number: int, row: Row, where: Callable[[int], str]) -> None:
        """Take in row *number*, which is not plain; ``rows`` is counted by whoever looks."""
        if row.fault is not None:
            self.bad += 1
            if self.first is None or number < self.first[0]:
                self.first = number, f"{where(number)}: {row.fault}"
            return
        self.seeds += row.seed is not None
        if row.negative_prompt is not None:
            self.negatives += 1
            self.negative = self.negative or where(number)
        if row.size is not None:
            first, count = self.sizes.get(row.size) or (where(number), 0)
            self.sizes[row.size] = first, count + 1


class RowSource(Protocol):
    """Rows 0 to ``len(source)`` in a fixed order. ``fingerprint`` names their content, not their place.

    ``schema`` are the pass-through columns, the same for every row: a row without one has null there. ``meaning`` says
    which columns steer, ``names`` are all that it has.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def meaning(self) -> Meaning: ...

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def look(self) -> Looked:
        """Look at the rows that a plan would use, at a sample of them where they are many."""
        ...

    def where(self, number: int) -> str:
        """Name a row, counted from 0, for a message, as in "prompts.csv: row 12"."""
        ...

    def read(self, start: int, stop: int) -> Rows:
        """Return rows *start* to *stop* (exclusive). Raises ``ConfigError`` where the source cannot be read."""
        ...

    def read_blocks(self, blocks: Sequence[range]) -> list[Rows]:
        """Return the rows of each of *blocks*, ascending ranges of rows that do not overlap. Raises as ``read``."""
        ...


def one_by_one(source: RowSource, blocks: Sequence[range]) -> list[Rows]:
    """``read_blocks`` of a source for which reading at a few places at once would be no faster."""
    return [source.read(block.start, block.stop) for block in blocks]


def is_plain(prompt: Any) -> bool:
    """Is this surely a text that can be drawn? Most prompts are found good by this, at a tenth of the cost."""
    return isinstance(prompt, str) and prompt.isascii() and prompt[:1].isalnum()


def make_row(record: Mapping[str, Any], meaning: Meaning) -> Row:
    """Make the row of a raw *record*; what is wrong with it is its ``fault``."""
    name = meaning.prompt
    prompt = record.get(name)
    fault: str | None
    if prompt is None:
        fault = f"column {name!r} is null" if name in record else f"has no column {name!r}"
        return Row(prompt="", fault=f"{fault}; expected a prompt")
    if (fault := text_fault(name, prompt)) is not None:
        return Row(prompt=encodable(prompt) if isinstance(prompt, str) else "", fault=fault)
    given = {role: record.get(column) for role, column in meaning.steering.items() if role != "prompt"}
    if all(value is None for value in given.values()):
        return Row(prompt=prompt)
    try:
        negative = given.get("negative_prompt")
        if _is_absent(negative):
            negative = None
        elif (fault := text_fault(meaning.steering["negative_prompt"], negative, blank=True)) is not None:
            return Row(prompt=prompt, fault=fault)
        return Row(prompt=prompt, seed=_seed(given, meaning), negative_prompt=negative, size=_size(given, meaning))
    except Problem as problem:
        return Row(prompt=prompt, fault=f"column {problem}")


def text_fault(column: str, value: Any, *, blank: bool = False) -> str | None:
    """Say why this is no text that can be drawn, or None. Blank ones are refused unless *blank* allows them."""
    if not isinstance(value, str):
        return f"column {column!r} is {show(value)}; expected a text"
    if is_plain(value):
        return None
    if (fault := encoding_fault(value)) is not None:
        return f"column {column!r} {fault}"
    if not blank and all(letter.isspace() or unicodedata.category(letter) in INVISIBLE for letter in value):
        return f"column {column!r} is blank; expected a prompt"
    return None


def encoding_fault(text: str) -> str | None:
    """Say what of *text* has no place in UTF-8, or None: a lone surrogate, or a byte that was no UTF-8 when read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # what surrogateescape makes of a byte
            return f"is not UTF-8 text (byte {code - 0xDC00:#04x})"
        return f"has a lone surrogate (\\u{code:04x}, half of a character)"
    return None


def encodable(text: str) -> str:
    """Return *text* with U+FFFD for what has no place in UTF-8."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _is_absent(value: Any) -> bool:
    """Null, an empty text, or NaN, as pandas writes a missing value."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _whole(value: Any) -> int | None:
    """Return a whole number however it is written (7, 7.0, "7", "7.0"), or None for anything else."""
    if isinstance(value, bool):
        return None
    text = repr(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    found = re.fullmatch(r"([+-]?\d{1,4000})(\.0*)?", text)
    return int(found[1]) if found else None


def _seed(given: Mapping[str, Any], meaning: Meaning) -> int | None:
    value = given.get("seed")
    if _is_absent(value):
        return None
    seed = _whole(value)
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise Problem(meaning.steering["seed"], f"is {show(value)}; expected a whole number from 0 to 2^63 - 1")
    return seed


def _size(given: Mapping[str, Any], meaning: Meaning) -> tuple[int, int] | None:
    """Read ``size`` ("64x64" or [64, 64]) or ``width`` and ``height``."""
    size, sides = given.get("size"), [given.get("width"), given.get("height")]
    if not _is_absent(size):
        key, shown = meaning.steering["size"], show(size)
        wanted = re.split(r"\s*[xX×]\s*", size.strip()) if isinstance(size, str) else size
    elif all(map(_is_absent, sides)):
        return None
    else:
        names = [meaning.steering["width"], meaning.steering["height"]]
        key, shown, wanted = " and ".join(names), " and ".join(map(show, sides)), sides
    whole = [_whole(side) for side in wanted] if isinstance(wanted, list | tuple) else []
    if len(whole) != 2 or None in whole:
        expected = "such as '64x64' or [64, 64]" if not _is_absent(size) else "two whole numbers of pixels, or neither"
        raise Problem(key, f"is {shown}; expected {expected}")
    return check_size(key, *whole)
