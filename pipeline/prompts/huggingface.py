"""Prompts from HF datasets: from the hub (``hf://NAME[:config][@revision]``) or a folder of ``save_to_disk``.

The library is an extra, imported here alone. Rows are read as Arrow tables, so pictures are never decoded.
"""

import re
from pathlib import Path
from typing import Any

from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError, nearest
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.passing import check_steering, passing_schema
from pipeline.prompts.source import Looked, Rows, one_by_one
from pipeline.prompts.tables import look_at, sampled, table_rows

LOOKED_OVER = 1 << 16  # rows at once
REFERENCE = re.compile(
    r"hf://(?:datasets/)?(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@:]+))?(?:@(?P<revision>.+))?"
)


class HubSource:
    """One split of a dataset. The fingerprint is the library's own, which names the revision and the split."""

    read_blocks = one_by_one

    def __init__(self, name: str, dataset: Any, prompts: PromptsConfig):
        self.meaning = meaning = Meaning.of(prompts)
        self._name, self._limit = name, prompts.limit
        self.names = dataset.column_names
        parts = [(name, dataset.features.arrow_schema)]
        meaning.check_part(self.names, name)
        meaning.check(self.names, name)
        check_steering(parts, meaning)
        self.schema = passing_schema(parts, meaning)
        self.fingerprint = f"hf:{dataset._fingerprint}"
        used = {*meaning.steering.values(), *self.schema.names}
        self._dataset = dataset.select_columns([c for c in self.names if c in used]).with_format("arrow")

    @classmethod
    def from_hub(cls, prompts: PromptsConfig) -> "HubSource":
        """Open a dataset of the hub. Raises ``ConfigError`` for a bad reference, split or name."""
        reference, split = prompts.source or "", prompts.split
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
        return cls(reference, dataset, prompts)

    @classmethod
    def from_folder(cls, folder: Path, prompts: PromptsConfig) -> "HubSource":
        """Open what ``save_to_disk`` wrote. Raises ``ConfigError`` for another folder, and for an unknown split."""
        if not (folder / "dataset_info.json").exists() and not (folder / "dataset_dict.json").exists():
            raise ConfigError(f"prompts.source: {folder} is a folder that HF datasets did not save; expected a file")
        dataset, split = _library().load_from_disk(str(folder)), prompts.split
        if isinstance(dataset, dict):
            if split not in dataset:
                has = f"{nearest(split, dataset)}; it has {', '.join(dataset)}"
                raise ConfigError(f"prompts.split: {folder} has no split {split!r}{has}")
            dataset = dataset[split]
        return cls(str(folder), dataset, prompts)

    def __len__(self) -> int:
        return len(self._dataset)

    def look(self) -> Looked:
        """Look at the columns that steer, of all rows or of runs of them that are evenly spread."""
        rows = len(self) if self._limit is None else min(len(self), self._limit)
        looked = Looked()
        dataset = self._dataset.select_columns(list(self.meaning.steers(self.names).values()))
        runs = [range(start, min(rows, start + LOOKED_OVER)) for start in range(0, rows, LOOKED_OVER)]
        for part in sampled(rows, runs):
            look_at(dataset[part.start : part.stop], part.start, self.meaning, looked, self.where)
        return looked

    def where(self, number: int) -> str:
        return f"{self._name}: row {number + 1}"

    def read(self, start: int, stop: int) -> Rows:
        """Return rows *start* to *stop*."""
        return table_rows(self._dataset[start:stop], self.meaning, self.schema)


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise ConfigError("prompts.source: HF datasets are an extra: `pip install -e '.[hf]'`") from None
    return datasets
