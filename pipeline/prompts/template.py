"""Prompts from a template: every combination of the values, as digits of a mixed radix; nothing is materialised."""

import hashlib
import json
import math
import string
import sys

import pyarrow as pa

from pipeline.config.validate import template_fields
from pipeline.prompts.source import Row, Wishes, one_by_one


class TemplateSource:
    """Row i of ``a {animal} on the {place}``: the last field named turns fastest, like the last digit of a number.

    The values used pass through as columns named like the fields.
    """

    wishes = Wishes()
    read_blocks = one_by_one

    def __init__(self, template: str, values: dict[str, list[str]]):
        self._template = template
        self._fields = template_fields(template)
        self._values = {name: values[name] for name in self._fields}
        content = json.dumps([template, self._values], sort_keys=True)
        self.fingerprint = f"template:{hashlib.sha256(content.encode()).hexdigest()}"
        self.schema = pa.schema([pa.field(name, pa.string()) for name in self._fields])

    def __len__(self) -> int:
        """The number of combinations; of more than len() can say, as many as it can: no plan takes near as many."""
        return min(sys.maxsize, math.prod(len(values) for values in self._values.values()))

    def read(self, start: int, stop: int) -> list[Row]:
        """Return rows *start* to *stop*."""
        return [self._row(i) for i in range(start, stop)]

    def _row(self, number: int) -> Row:
        chosen = {}
        for name in reversed(self._fields):
            number, digit = divmod(number, len(self._values[name]))
            chosen[name] = self._values[name][digit]
        prompt = string.Formatter().vformat(self._template, (), chosen)
        return Row(prompt=prompt, columns={name: chosen[name] for name in self._fields})
