"""Which source a config asks for. Each format is a module of its own, imported only where it is used."""

from collections.abc import Callable
from glob import glob, has_magic
from pathlib import Path

from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError, nearest
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.source import RowSource
from pipeline.registry import is_class_name


def open_source(prompts: PromptsConfig) -> RowSource:
    """Open the prompts of a loaded config. Raises ``ConfigError`` for a source that is missing or cannot be used."""
    if prompts.template is not None:
        from pipeline.prompts.template import TemplateSource

        return TemplateSource(prompts.template, prompts.values)
    assert prompts.source is not None  # held by validate_static
    if is_class_name(prompts.source):
        from pipeline.prompts.own import OwnRows

        return OwnRows.open(prompts)
    if prompts.source.startswith("hf://"):
        from pipeline.prompts.huggingface import HubSource

        return HubSource.from_hub(prompts)
    local = "://" not in prompts.source
    path = Path(prompts.source if local else prompts.source.partition("?")[0])  # behind it are options of Arrow's
    suffix = path.suffix.lower()
    zipped = suffix == ".gz"
    if zipped:
        suffix = path.with_suffix("").suffix.lower()
    if suffix not in FORMATS or (zipped and suffix == ".parquet"):
        if local and path.is_dir():
            from pipeline.prompts.huggingface import HubSource

            return HubSource.from_folder(path, prompts)
        known, shown = ", ".join(FORMATS), suffix + ".gz" * zipped
        raise ConfigError(
            f"prompts.source: {prompts.source} has the suffix {shown!r}{nearest(shown, FORMATS)}; expected one of "
            f"{known} (text also with .gz behind it), a folder saved by HF datasets, hf://NAME or module:Class"
        )
    if suffix != ".parquet":
        if not local:
            raise ConfigError(f"prompts.source: {prompts.source}: only .parquet is read remotely; download it")
        if path.is_dir():
            raise ConfigError(f"prompts.source: {prompts.source} is a folder; expected a file")
    if local and not path.exists() and not has_magic(prompts.source):
        near = nearest(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise ConfigError(f"prompts.source: {prompts.source}: no such file{near}")
    try:
        return FORMATS[suffix](prompts)
    except OSError as error:
        raise ConfigError(f"prompts.source: {prompts.source}: {error.strerror or error}") from error


def _paths(prompts: PromptsConfig) -> list[Path]:
    """Return the text files that a path or glob stands for, in the order of their names."""
    assert prompts.source is not None
    if Path(prompts.source).exists():  # its name may have a bracket
        return [Path(prompts.source)]
    paths = [Path(path) for path in sorted(glob(prompts.source, recursive=True)) if Path(path).is_file()]
    if not paths:
        raise ConfigError(f"prompts.source: {prompts.source}: no such file")
    return paths


def _txt(prompts: PromptsConfig) -> RowSource:
    from pipeline.prompts.lines import LinesSource
    from pipeline.prompts.textfiles import Txt

    meaning = Meaning.of(prompts)
    return LinesSource([Txt(path, meaning) for path in _paths(prompts)], meaning, prompts.limit)


def _jsonl(prompts: PromptsConfig) -> RowSource:
    from pipeline.prompts.lines import LinesSource
    from pipeline.prompts.textfiles import JsonLines

    meaning = Meaning.of(prompts)
    return LinesSource([JsonLines(path, meaning) for path in _paths(prompts)], meaning, prompts.limit)


def _json(prompts: PromptsConfig) -> RowSource:
    from pipeline.prompts.lines import LinesSource
    from pipeline.prompts.textfiles import json_file

    meaning = Meaning.of(prompts)
    return LinesSource([json_file(path, meaning) for path in _paths(prompts)], meaning, prompts.limit)


def _csv(prompts: PromptsConfig) -> RowSource:
    from pipeline.prompts.lines import LinesSource
    from pipeline.prompts.textfiles import Csv

    meaning = Meaning.of(prompts)
    return LinesSource([Csv(path, meaning, ",") for path in _paths(prompts)], meaning, prompts.limit)


def _tsv(prompts: PromptsConfig) -> RowSource:
    from pipeline.prompts.lines import LinesSource
    from pipeline.prompts.textfiles import Csv, QuotingError

    meaning, paths = Meaning.of(prompts), _paths(prompts)
    try:  # both kinds of TSV are about: with quotes as in CSV, and (IANA) without any meaning to them
        return LinesSource([Csv(path, meaning, "\t") for path in paths], meaning, prompts.limit)
    except QuotingError:
        return LinesSource([Csv(path, meaning, "\t", quoted=False) for path in paths], meaning, prompts.limit)


def _parquet(prompts: PromptsConfig) -> RowSource:
    from pipeline.prompts.parquet import ParquetSource

    return ParquetSource(prompts)


# A new format is a module and a line here.
FORMATS: dict[str, Callable[[PromptsConfig], RowSource]] = {
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
