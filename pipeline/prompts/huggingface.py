"""Prompts from HF datasets: from the hub (``hf://NAME[:config][@revision]``) or a folder of ``save_to_disk``.

The library is an extra, imported here alone. Rows are read as Arrow tables, so pictures are never decoded.
"""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, nearest
from pipeline.prompts.source import OWN_COLUMNS, Row, Wishes, is_text, make_row, one_by_one, pass_through

LOOKED_OVER = 1 << 16  # rows at once, in search of empty prompts
REFERENCE = re.compile(
    r"hf://(?:datasets/)?(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@:]+))?(?:@(?P<revision>.+))?"
)


class HubSource:
    """One split of a dataset. The fingerprint is the library's own, which names the revision and the split."""

    wishes = Wishes()
    read_blocks = one_by_one

    def __init__(self, name: str, dataset: Any, column: str):
        self._name, self._column = name, column
        if column not in dataset.column_names:
            has = f"{nearest(column, dataset.column_names)}; it has {', '.join(dataset.column_names)}"
            raise ConfigError(f"prompts.column: {name} has no column {column!r}{has}")
        type_ = dataset.features.arrow_schema.field(column).type
        if not is_text(type_):
            raise ConfigError(f"prompts.column: column {column!r} of {name} is {type_}; expected text")
        self.fingerprint = f"hf:{dataset._fingerprint}"
        self.schema: pa.Schema = pass_through(dataset.features.arrow_schema, column)
        used = {column, *OWN_COLUMNS, *self.schema.names}
        self._dataset = dataset.select_columns([c for c in dataset.column_names if c in used]).with_format("arrow")
        self._refuse_empty()

    @classmethod
    def from_hub(cls, reference: str, split: str, column: str) -> "HubSource":
        """Open a dataset of the hub. Raises ``ConfigError`` for a bad reference, split or name."""
        parts = REFERENCE.fullmatch(reference)
        if parts is None:
            raise ConfigError(
                f"prompts.source: {reference}; expected hf://NAME[:config][@revision], as hf://owner/name"
            )
        datasets = _library()
        try:
            dataset = datasets.load_dataset(parts["name"], parts["config"], split=split, revision=parts["revision"])
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            raise ConfigError(f"prompts.source: {reference}: {str(error).splitlines()[0]}") from error
        return cls(reference, dataset, column)

    @classmethod
    def from_folder(cls, folder: Path, split: str, column: str) -> "HubSource":
        """Open what ``save_to_disk`` wrote. Raises ``ConfigError`` for another folder, and for an unknown split."""
        if not (folder / "dataset_info.json").exists() and not (folder / "dataset_dict.json").exists():
            raise ConfigError(f"prompts.source: {folder} is a folder that HF datasets did not save; expected a file")
        dataset = _library().load_from_disk(str(folder))
        if isinstance(dataset, dict):
            if split not in dataset:
                has = f"{nearest(split, dataset)}; it has {', '.join(dataset)}"
                raise ConfigError(f"prompts.split: {folder} has no split {split!r}{has}")
            dataset = dataset[split]
        return cls(str(folder), dataset, column)

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, start: int, stop: int) -> list[Row]:
        """Return rows *start* to *stop*."""
        records = self._dataset[start:stop].to_pylist()
        return [
            make_row(
                record,
                self._column,
                f"prompts.source: {self._name}: row {number + 1}",
                {name: record[name] for name in self.schema.names},
            )
            for number, record in enumerate(records, start)
        ]

    def _refuse_empty(self) -> None:
        """Name the first row without a prompt. Only lengths are read of the prompts, no text."""
        start = 0
        for rows in self._dataset.select_columns([self._column]).iter(LOOKED_OVER):
            place = pc.index(pc.fill_null(pc.equal(rows.column(0), ""), True), True).as_py()
            if place >= 0:
                self.read(start + place, start + place + 1)  # raises
            start += rows.num_rows


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise ConfigError("prompts.source: HF datasets are an extra: `pip install -e '.[hf]'`") from None
    return datasets
