"""What words draw, as pictures proved it before a run began: the table by which it chose what its gate acts on.

It lies in the corpus as evidence, ``words/NAME.parquet``, a row for each word and concept, and ``run.yaml`` pins it.
Counts alone: the pictures are in the cache of words, and none of them is here.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.schema import ProvedWords
from pipeline.corpus import layout
from pipeline.corpus.stores import Store
from pipeline.errors import CorpusError

RULES = b"lacuna.rules"  # the key, in the file's metadata, of the sentences that say how verdicts came about
SHOWN = 40  # words on a line
SCHEMA = pa.schema(
    [
        pa.field("word", pa.string(), nullable=False),
        pa.field("concept", pa.string(), nullable=False),
        pa.field("hits", pa.int32(), nullable=False),
        pa.field("pictures", pa.int32(), nullable=False),
        pa.field("low", pa.float32(), nullable=False),
        pa.field("high", pa.float32(), nullable=False),
        pa.field("p", pa.float32(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class WordRow:
    """A word beside a concept: *hits* of its *pictures* show it, *low* and *high* are the 95 % interval of that share.

    ``p`` is the chance of so many hits of a word that has nothing to do with it; ``verdict`` is "means", "implies" or
    "leave".
    """

    word: str
    concept: str
    hits: int
    pictures: int
    low: float
    high: float
    p: float
    verdict: str

    def __str__(self) -> str:
        interval = f"{100 * self.low:.0f} to {100 * self.high:.0f} %"
        return f"{self.word} {self.hits}/{self.pictures} ({interval})"


@dataclass(frozen=True)
class ConceptWords:
    """What the table says of one concept: its own *name*'s row, and the words that mean or imply it, surest first."""

    name: WordRow
    means: list[WordRow]
    implies: list[WordRow]


@dataclass(frozen=True)
class WordTable:
    """The *rows* of a table, and the *rules* by which their verdicts came about, as sentences."""

    rows: Sequence[WordRow]
    rules: str

    @property
    def words(self) -> int:
        return len({row.word for row in self.rows})

    def concepts(self) -> Iterator[ConceptWords]:
        """Yield what is said of each concept, in the order of the rows."""
        by_concept: dict[str, list[WordRow]] = {}
        for row in self.rows:
            by_concept.setdefault(row.concept, []).append(row)
        for concept, rows in by_concept.items():
            others = sorted((row for row in rows if row.word != concept), key=lambda row: (-row.low, row.word))
            yield ConceptWords(
                next(row for row in rows if row.word == concept),
                [row for row in others if row.verdict == "means"],
                [row for row in others if row.verdict == "implies"],
            )

    def dumps(self) -> bytes:
        """Return it as parquet; the same table, the same bytes."""
        buffer = io.BytesIO()
        table = pa.Table.from_pylist([asdict(row) for row in self.rows], schema=SCHEMA)
        pq.write_table(table.replace_schema_metadata({RULES: self.rules.encode()}), buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def loads(cls, data: bytes) -> "WordTable":
        """Read what ``dumps`` wrote. Raises ``ValueError`` (Arrow's) for what is none."""
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
        rules = (table.schema.metadata or {}).get(RULES, b"").decode()
        return cls([WordRow(**row) for row in table.select(SCHEMA.names).to_pylist()], rules)


def shown(rows: Sequence[WordRow], most: int = SHOWN) -> str:
    """Return the first *most* of *rows* as a line; "-" where there are none."""
    more = f" and {len(rows) - most:,} more" if len(rows) > most else ""
    return ", ".join(map(str, rows[:most])) + more or "-"


def name_of(data: bytes) -> str:
    """Return where a table of these bytes lies in a corpus: under a name of its own."""
    return layout.words(hashlib.sha256(data).hexdigest()[:16])


def pinned_words(proved: ProvedWords | None) -> dict[str, Any]:
    """Return what ``run.yaml`` pins of *proved* words: the table's file and sha256, and the words by concept."""
    if proved is None:
        return {}
    sha256 = hashlib.sha256(proved.table).hexdigest()
    return {"file": name_of(proved.table), "sha256": sha256, "proven": proved.proven, "implied": proved.implied}


def fault_of(store: Store, pinned: Mapping[str, Any] | None) -> str:
    """Return a line where the table that ``run.yaml`` has *pinned* is not there as it was; "" where none is pinned."""
    if not pinned:
        return ""
    try:
        data = store.read(pinned["file"])
    except FileNotFoundError:
        return f"{pinned['file']}: missing, though {layout.RUN} pins it"
    if hashlib.sha256(data).hexdigest() != pinned["sha256"]:
        return f"{pinned['file']}: sha256 is not the one pinned in {layout.RUN}"
    return ""


def read_words(store: Store, pinned: Mapping[str, Any] | None) -> WordTable | None:
    """Return the table that ``run.yaml`` has *pinned*; None without one. ``CorpusError`` where ``fault_of`` has one."""
    if not pinned:
        return None
    if fault := fault_of(store, pinned):
        raise CorpusError(f"{store.url}/{fault}")
    return WordTable.loads(store.read(pinned["file"]))
