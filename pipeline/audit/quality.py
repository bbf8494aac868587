"""The measures of a config at work: which columns they fill in the manifest, and what they are."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.audit.detector import weights_digest
from pipeline.audit.measure import Measure, load_measure
from pipeline.config.sections.audit import QualityConfig
from pipeline.errors import ConfigError, named_in_errors

Values = Mapping[str, Any]  # of one picture, by column


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measure as the config names it, under the key ``where``, with the digest of its weights and code."""

    name: str
    where: str
    measure: Measure
    sha256: str
    columns: Mapping[str, pa.DataType]

    def __call__(self, images: np.ndarray, captions: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return the columns' values; ``ValueError`` where they are not what the measure said."""
        with named_in_errors(f"{self.where}: {self.name}.measure"):
            values = self.measure.measure(images, captions)
        if values.keys() != self.columns.keys():
            told, said = ", ".join(values), ", ".join(self.columns)
            raise ValueError(f"{type(self.measure).__name__}.measure gave the columns {told}; its columns are {said}")
        for name, type_ in self.columns.items():
            wanted = (len(images), *([type_.list_size] if pa.types.is_fixed_size_list(type_) else []))
            if values[name].shape != wanted or (values[name].dtype.kind == "f" and np.isinf(values[name]).any()):
                raise ValueError(
                    f"{type(self.measure).__name__}.measure gave {name} of shape {values[name].shape} or with "
                    f"infinities; expected {wanted}, finite or NaN"
                )
        return values


class Quality:
    """Measures together. ``schema`` are the columns of the manifest that they fill."""

    def __init__(self, measures: Sequence[Measured]):
        """Raise ``ConfigError`` for two columns of one name, and for a type that no column may have."""
        self.measures = tuple(measures)
        owners: dict[str, str] = {}
        for one in self.measures:
            for column, type_ in one.columns.items():
                if column in owners:
                    raise ConfigError(f"{one.where}: {one.name} fills the column {column!r}, as {owners[column]} does")
                owners[column] = one.name
                if not _is_number(type_.value_type if pa.types.is_fixed_size_list(type_) else type_):
                    raise ConfigError(
                        f"{one.where}: {one.name}: the column {column!r} is of {type_}; expected a number, a truth or "
                        "a fixed-size list of numbers"
                    )
        self.schema = pa.schema([(column, type_) for one in self.measures for column, type_ in one.columns.items()])

    @classmethod
    def load(cls, configs: Sequence[QualityConfig], device: str) -> "Quality | None":
        """Build the measures that the config asks for; ``None`` where it asks for none."""
        if not configs:
            return None
        measures = []
        for i, config in enumerate(configs):
            where = f"audit.quality[{i}]"
            measure = load_measure(config, device, where)
            sha256 = weights_digest(measure, config.options)
            with named_in_errors(f"{where}: {config.measure}.columns"):
                columns = measure.columns()
            measures.append(Measured(name=config.measure, where=where, measure=measure, sha256=sha256, columns=columns))
        return cls(measures)

    @property
    def row_bytes(self) -> int:
        """How many bytes the columns take in a row of the manifest, about."""
        lists = pa.types.is_fixed_size_list
        return sum(
            type_.list_size * type_.value_type.bit_width // 8 if lists(type_) else max(1, type_.bit_width // 8)
            for type_ in self.schema.types
        )

    def pinned(self) -> list[dict[str, Any]]:
        """Return what measures, as a run's record keeps it."""
        return [
            {
                "name": one.name,
                "about": one.measure.about(),
                "sha256": one.sha256,
                "columns": {column: str(type_) for column, type_ in one.columns.items()},
            }
            for one in self.measures
        ]

    def check(self, begun: Sequence[Mapping[str, Any]]) -> None:
        """Raise ``ConfigError`` where other measures look than those of *begun*, a run's record."""
        for one, now, then in zip(self.measures, self.pinned(), begun, strict=True):
            for key, value in now.items():
                if value != then[key]:
                    what = "weights and code" if key == "sha256" else key
                    raise ConfigError(
                        f"{one.where}: {one.name} is now another than the corpus was begun with: {what}: "
                        f"{then[key] or 'none'} -> {value or 'none'}; put back what it had, or begin anew elsewhere"
                    )

    def look(self, images: np.ndarray, captions: Sequence[str], threads: Executor) -> Future[list[Values]]:
        """Measure *images*, uint8 ``(B, H, W, 3)``: here what needs the device, the rest in *threads*.

        Returns the values of each picture.
        """
        found = [one(images, captions) for one in self.measures if not one.measure.behind]
        behind = [one for one in self.measures if one.measure.behind]

        def rest() -> list[Values]:
            columns: dict[str, np.ndarray] = {}
            for given in (*found, *(one(images, captions) for one in behind)):
                columns |= given
            return [{name: values[i] for name, values in columns.items()} for i in range(len(images))]

        return threads.submit(rest)


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_))
