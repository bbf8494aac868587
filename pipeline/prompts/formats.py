"""Text files of prompts: a path or a glob in ``prompts.source``, opened by what its suffix stands for."""

from collections.abc import Callable
from glob import glob
from pathlib import Path

from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError
from pipeline.prompts.lines import LinesSource
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.source import RowSource
from pipeline.prompts.textfiles import Csv, JsonLines, QuotingError, TextFile, Txt, json_file


def open_txt(prompts: PromptsConfig) -> RowSource:
    return _opened(prompts, Txt)


def open_jsonl(prompts: PromptsConfig) -> RowSource:
    return _opened(prompts, JsonLines)


def open_json(prompts: PromptsConfig) -> RowSource:
    return _opened(prompts, json_file)


def open_csv(prompts: PromptsConfig) -> RowSource:
    return _opened(prompts, lambda path, meaning: Csv(path, meaning, ","))


def open_tsv(prompts: PromptsConfig) -> RowSource:
    try:  # both kinds of TSV are about: with quotes as in CSV, and (IANA) without any meaning to them
        return _opened(prompts, lambda path, meaning: Csv(path, meaning, "\t"))
    except QuotingError:
        return _opened(prompts, lambda path, meaning: Csv(path, meaning, "\t", quoted=False))


def _opened(prompts: PromptsConfig, read: Callable[[Path, Meaning], TextFile]) -> RowSource:
    meaning = Meaning.of(prompts)
    return LinesSource([read(path, meaning) for path in _paths(prompts)], meaning, prompts.limit)


def _paths(prompts: PromptsConfig) -> list[Path]:
    """Return the text files that a path or glob stands for, in the order of their names."""
    assert prompts.source is not None
    if Path(prompts.source).exists():  # its name may have a bracket
        return [Path(prompts.source)]
    paths = [Path(path) for path in sorted(glob(prompts.source, recursive=True)) if Path(path).is_file()]
    if not paths:
        raise ConfigError(f"prompts.source: {prompts.source}: no such file")
    return paths
