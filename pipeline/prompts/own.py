"""Sources of one's own: a class that gives Arrow tables, named as ``module:Class``.

What a source is for a plan is made of it here, so that columns, bad rows and limits are those of any other source.
"""

import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config.options import read_keywords
from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError, named_in_errors
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.passing import check_steering, passing_schema
from pipeline.prompts.source import Looked, Rows, one_by_one
from pipeline.prompts.tables import look_at, sampled, table_rows
from pipeline.registry import load_class

KEY = "prompts.source"  # of the config
LOOKED_OVER = 1 << 16  # rows at once
TYPED = 1024  # rows from which the types of columns are taken


class Source(ABC):
    """Rows in a fixed order, with random access.

    A subclass is constructed as ``Subclass(**options)``, with ``prompts.options`` of the config as keywords: they are
    held to the names of its constructor's parameters, and to their types where those are annotated. It may be pickled,
    so it keeps no open file.
    """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A text that names the content: another one is another corpus, which what is begun is not mixed with."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @abstractmethod
    def table(self, start: int, stop: int) -> pa.Table:
        """Return rows *start* to *stop* (exclusive, at most ``len(self)``), always with the same columns.

        The column ``prompt``, or the one that ``prompts.columns`` names, is the prompt; others steer or pass on to the
        manifest as those of a file do (``pipeline/prompts/README.md``).
        """


class OwnRows:
    """What a plan reads of a ``Source``. ``name`` is what the config calls its class."""

    read_blocks = one_by_one

    def __init__(self, name: str, source: Source, prompts: PromptsConfig):
        """Raise ``ConfigError`` for a source without rows of the columns that the config, or a plan, asks for."""
        self._name, self._source, self._limit = name, source, prompts.limit
        self.meaning = Meaning.of(prompts)
        with named_in_errors(f"{KEY}: {name}.fingerprint"):
            fingerprint: object = source.fingerprint
        if not isinstance(fingerprint, str) or not fingerprint:
            raise ConfigError(f"{KEY}: {name}.fingerprint is {fingerprint!r}; expected a text")
        self.fingerprint = f"own:{fingerprint}{_told(prompts.options)}"
        schema = self._table(0, min(len(self), TYPED)).schema
        self.names: Sequence[str] = schema.names
        parts = [(name, schema)]
        self.meaning.check_part(self.names, name)
        self.meaning.check(self.names, name)
        check_steering(parts, self.meaning)
        self.schema = passing_schema(parts, self.meaning)

    @classmethod
    def open(cls, prompts: PromptsConfig) -> "OwnRows":
        """Make the source that ``prompts.source`` names. Raises ``ConfigError`` for an unknown or unfinished class, and
        for options that it does not take; what its code raises is named (see ``named_in_errors``) here and later."""
        assert prompts.source is not None
        name = prompts.source
        found: type[Source] = load_class("source", name, {}, Source, KEY)
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise ConfigError(
                f"{KEY}: {name} does not define {', '.join(missing)}; expected __len__, fingerprint and table"
            )
        options = read_keywords("prompts.options", name, found, 0, prompts.options)
        with named_in_errors(f"{KEY}: {name}"):
            source = found(**options)
        return cls(name, source, prompts)

    def __getstate__(self) -> dict[str, Any]:
        with named_in_errors(f"{KEY}: {self._name}, for other processes"):
            return {**self.__dict__, "_source": pickle.dumps(self._source)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        load_class("source", state["_name"], {}, Source, KEY)  # its module may lie where only that looks
        with named_in_errors(f"{KEY}: {state['_name']}"):
            self.__dict__.update(state, _source=pickle.loads(state["_source"]))

    def __len__(self) -> int:
        with named_in_errors(f"{KEY}: {self._name}.__len__"):
            return len(self._source)

    def look(self) -> Looked:
        """Look at the columns that steer, of all rows or of runs of them that are evenly spread."""
        rows = len(self) if self._limit is None else min(len(self), self._limit)
        looked = Looked()
        runs = [range(start, min(rows, start + LOOKED_OVER)) for start in range(0, rows, LOOKED_OVER)]
        for part in sampled(rows, runs):
            look_at(self._table(part.start, part.stop), part.start, self.meaning, looked, self.where)
        return looked

    def where(self, number: int) -> str:
        return f"{self._name}: row {number + 1}"

    def read(self, start: int, stop: int) -> Rows:
        """Return rows *start* to *stop*."""
        return table_rows(self._table(start, stop), self.meaning, self.schema)

    def _table(self, start: int, stop: int) -> pa.Table:
        what = f"{KEY}: {self._name}.table({start}, {stop})"
        with named_in_errors(what):
            table: object = self._source.table(start, stop)
        if not isinstance(table, pa.Table):
            raise ConfigError(f"{what} gave a {type(table).__name__}; expected a pyarrow.Table")
        if len(table) != stop - start:
            raise ConfigError(f"{what} gave {len(table)} rows; expected {stop - start}")
        return table


def _told(options: Mapping[str, Any]) -> str:
    """Return what the fingerprint says of *options*: all that name no file, whose place is not its content."""
    told = {key: value for key, value in options.items() if not (isinstance(value, str) and Path(value).exists())}
    return f":{json.dumps(told, sort_keys=True, default=str)}" if told else ""
