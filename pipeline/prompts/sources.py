"""Which source a config asks for. Each format is a module of its own, imported only where it is used."""

from collections.abc import Callable
from glob import has_magic
from pathlib import Path

from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError, nearest
from pipeline.prompts.source import Source


def open_source(prompts: PromptsConfig) -> Source:
    """Open the prompts of a loaded config. Raises ``ConfigError`` for a source that is missing or cannot be used."""
    if prompts.template is not None:
        from pipeline.prompts.template import TemplateSource

        return TemplateSource(prompts.template, prompts.values)
    assert prompts.source is not None  # held by validate_static
    if prompts.source.startswith("hf://"):
        from pipeline.prompts.huggingface import HubSource

        return HubSource.from_hub(prompts.source, prompts.split, prompts.column)
    path = Path(prompts.source)
    local = "://" not in prompts.source
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        if local and path.is_dir():
            from pipeline.prompts.huggingface import HubSource

            return HubSource.from_folder(path, prompts.split, prompts.column)
        known = ", ".join(FORMATS)
        raise ConfigError(
            f"prompts.source: {prompts.source} has the suffix {suffix!r}{nearest(suffix, FORMATS)}; expected one of "
            f"{known}, a folder saved by HF datasets, or hf://NAME"
        )
    if suffix != ".parquet":
        if not local:
            raise ConfigError(f"prompts.source: {prompts.source}: only .parquet is read remotely; download it")
        if path.is_dir():
            raise ConfigError(f"prompts.source: {prompts.source} is a folder; expected a file")
    if local and not has_magic(prompts.source) and not path.exists():
        near = nearest(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise ConfigError(f"prompts.source: {prompts.source}: no such file{near}")
    try:
        return FORMATS[suffix](prompts.source, prompts.column)
    except OSError as error:
        raise ConfigError(f"prompts.source: {prompts.source}: {error.strerror or error}") from error


def _txt(path: str, column: str) -> Source:
    from pipeline.prompts.lines import LinesSource, Txt

    return LinesSource(Txt(Path(path), column))


def _jsonl(path: str, column: str) -> Source:
    from pipeline.prompts.lines import JsonLines, LinesSource

    return LinesSource(JsonLines(Path(path), column))


def _csv(path: str, column: str) -> Source:
    from pipeline.prompts.lines import Csv, LinesSource

    return LinesSource(Csv(Path(path), column, ","))


def _tsv(path: str, column: str) -> Source:
    from pipeline.prompts.lines import Csv, LinesSource, QuotingError

    try:  # both kinds of TSV are about: with quotes as in CSV, and (IANA) without any meaning to them
        return LinesSource(Csv(Path(path), column, "\t"))
    except QuotingError:
        return LinesSource(Csv(Path(path), column, "\t", quoted=False))


def _parquet(path: str, column: str) -> Source:
    from pipeline.prompts.parquet import ParquetSource

    return ParquetSource(path, column)


# A new format is a module and a line here.
FORMATS: dict[str, Callable[[str, str], Source]] = {
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
