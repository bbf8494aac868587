"""Prompts from a template: every combination of the values, as digits of a mixed radix; nothing is materialised."""

import hashlib
import json
import math
import string
import sys

import pyarrow as pa

from pipeline.config.prompts import template_fields
from pipeline.prompts.columns import as_table
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.source import Looked, Row, Rows, one_by_one


class TemplateSource:
    """Row i of ``a {animal} on the {place}``: the last field named turns fastest, like the last digit of a number.

    The values used pass through as columns named like the fields.
    """

    meaning = Meaning({})
    read_blocks = one_by_one

    def __init__(self, template: str, values: dict[str, list[str]]):
        self._template = template
        self._fields = template_fields(template)
        self._values = {name: values[name] for name in self._fields}
        content = json.dumps([template, self._values], sort_keys=True)
        self.fingerprint = f"template:{hashlib.sha256(content.encode()).hexdigest()}"
        self.schema = pa.schema([pa.field(name, pa.string()) for name in self._fields])
        self.names = self._fields

    def __len__(self) -> int:
        """The number of combinations; of more than len() can say, as many as it can: no plan takes near as many."""
        return min(sys.maxsize, math.prod(len(values) for values in self._values.values()))

    def look(self) -> Looked:
        """Nothing is to be seen in rows of the config's own: it is held to what can be drawn."""
        return Looked(rows=len(self))

    def where(self, number: int) -> str:
        return f"template {self._template!r}: combination {number + 1}"

    def read(self, start: int, stop: int) -> Rows:
        """Return rows *start* to *stop*."""
        rows = [self._chosen(i) for i in range(start, stop)]
        prompts = [string.Formatter().vformat(self._template, (), chosen) for chosen in rows]
        return Rows([Row(prompt=prompt) for prompt in prompts], as_table(rows, self.schema)[0])

    def _chosen(self, number: int) -> dict[str, str]:
        chosen = {}
        for name in reversed(self._fields):
            number, digit = divmod(number, len(self._values[name]))
            chosen[name] = self._values[name][digit]
        return chosen
