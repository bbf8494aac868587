"""Pictures that people labelled: which concepts of a list each shows, and which it does not.

Two forms are read. A folder has a folder for each concept with pictures that show it, called by its name, and ``none``
with pictures that show none of them; what else a picture of one concept shows is not known, so it counts for no other.
A table, ``.csv`` or ``.parquet``, has a row for each answer: ``path``, relative to the table, or ``key`` of a sample of
the config's corpus (a quarantined one is in its evidence), ``concept``, ``label`` 1 or 0, and ``reviewer`` where there
are several. The last answer of a reviewer counts, of several reviewers the majority; a tie counts for nothing.
"""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.concepts.normal import normal
from pipeline.config.schema import Config
from pipeline.corpus import Output, Status, layout
from pipeline.corpus.manifest import read_rows
from pipeline.errors import ConfigError, nearest

NONE = "none"
ENDINGS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
COLUMNS = ("path", "key", "concept", "label", "reviewer")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """``shows`` tells of each picture, by its path or key, whether it shows a concept; ``named`` are the concepts that
    have labels of their own, beside the pictures of none. ``several`` labels were given by
    more than one reviewer, who disagreed on ``disputed`` of them, and of these ``tied`` were no majority. ``read``
    returns a picture, uint8 ``(H, W, 3)``; it raises ``ConfigError`` for one that cannot be read."""

    shows: Mapping[str, Mapping[str, bool]]
    read: Callable[[str], np.ndarray]
    named: frozenset[str] = frozenset()
    several: int = 0
    disputed: int = 0
    tied: int = 0
    changed: int = 0  # answers that the same reviewer had given otherwise before
    left_out: int = 0  # files that are no pictures


def read_labelled(path: Path, config: Config) -> Labelled:
    """Read *path*, a folder or a table, whose concepts are those of *config*. Raises ``ConfigError`` in one line."""
    names = [concept.name for concept in config.erasure.concepts]
    if path.is_dir():
        found = _read_folder(path, names)
    elif not path.is_file():
        raise ConfigError(f"{path}: no such file or folder; expected pictures in folders, labels.csv or .parquet")
    elif path.suffix.lower() in (".csv", ".parquet"):
        found = _read_table(path, names, config)
    else:
        raise ConfigError(f"{path}: expected a folder of pictures, or labels as .csv or .parquet")
    if not found.shows:
        raise ConfigError(f"{path}: holds no labelled picture")
    return found


def _read_folder(path: Path, names: Sequence[str]) -> Labelled:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    shows: dict[str, dict[str, bool]] = {}
    named: set[str] = set()
    left_out = 0
    for folder in folders:
        if normal(folder.name) == NONE and NONE not in map(normal, names):
            told = dict.fromkeys(names, False)
        else:
            concept = _concept(folder.name, names, str(folder), f" or {NONE!r} as a folder's name")
            named.add(concept)
            told = {concept: True}
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            if file.suffix.lower() in ENDINGS:
                shows[str(file.relative_to(path))] = told
            else:
                left_out += 1
    if not folders:
        raise ConfigError(f"{path}: expected a folder for each concept ({', '.join(names)}) and one called {NONE!r}")
    return Labelled(
        shows=shows,
        read=lambda name: _decode(_file(path / name), str(path / name)),
        named=frozenset(named),
        left_out=left_out,
    )


def _read_table(path: Path, names: Sequence[str], config: Config) -> Labelled:
    rows = _rows(path)
    answers: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    by_key, changed = None, 0
    for where, row in rows:
        picture = row.get("path") or row.get("key") or ""
        if not picture:
            raise ConfigError(f"{where}: names no picture; expected `path` or `key`")
        if by_key not in (None, not row.get("path")):
            raise ConfigError(f"{where}: expected `path` in all rows, or `key` in all")
        by_key = not row.get("path")
        if (label := row["label"]) not in ("0", "1"):
            raise ConfigError(f"{where}: label is {label!r}; expected 1 (it shows the concept) or 0")
        concept = _concept(row["concept"], names, where, " as the concept")
        if not by_key and not (path.parent / picture).is_file():  # before any detector looks
            raise ConfigError(f"{where}: {path.parent / picture}: no such file")
        given, reviewer = answers[picture, concept], row.get("reviewer") or ""
        changed += given.get(reviewer, label == "1") != (label == "1")
        given[reviewer] = label == "1"
    shows: dict[str, dict[str, bool]] = defaultdict(dict)
    several = disputed = tied = 0
    for (picture, concept), given in answers.items():
        yes, no = sum(given.values()), len(given) - sum(given.values())
        several += len(given) > 1
        disputed += yes > 0 and no > 0
        tied += yes == no
        if yes != no:
            shows[picture][concept] = yes > no
    read = _CorpusPictures(config).read if by_key else lambda name: _decode(_file(path.parent / name), name)
    named = frozenset(concept for _, concept in answers)
    return Labelled(
        shows=dict(shows), read=read, named=named, several=several, disputed=disputed, tied=tied, changed=changed
    )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of a table as texts, and what to call it in messages."""
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                _check_columns(path, reader.fieldnames or ())
                for row in reader:
                    if None in row or None in row.values():
                        raise ConfigError(f"{path}:{reader.line_num}: has not as many fields as there are columns")
                    yield f"{path}:{reader.line_num}", {key: text.strip() for key, text in row.items()}
            return
        with pq.ParquetFile(path) as table:
            _check_columns(path, table.schema_arrow.names)
            columns = [name for name in COLUMNS if name in table.schema_arrow.names]
            for number, held in enumerate(table.read(columns=columns, use_threads=False).to_pylist()):
                yield f"{path}: row {number}", {key: _text(value) for key, value in held.items()}
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def _check_columns(path: Path, found: Iterable[str]) -> None:
    names = list(found)
    for name in ("concept", "label"):
        if name not in names:
            has = ", ".join(names) or "none"
            raise ConfigError(f"{path}: has no column {name!r}{nearest(name, names)}; it has {has}")
    if "path" not in names and "key" not in names:
        raise ConfigError(f"{path}: has neither a column 'path' nor 'key'; it has {', '.join(names)}")


def _text(value: object) -> str:
    if value is None:
        return ""
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return f"{value:.0f}" if whole else str(value).strip()


def _concept(text: str, names: Sequence[str], where: str, what: str) -> str:
    by_form = {normal(name): name for name in names}
    if normal(text) not in by_form:
        hint = nearest(text, names)
        raise ConfigError(f"{where}: {text!r} is no concept of the config{hint}; expected {', '.join(names)}{what}")
    return by_form[normal(text)]


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _decode(data: bytes, where: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:  # whose text names an object of Python's
        raise ConfigError(f"{where}: is no picture that can be read: its format is not known") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{where}: is no picture that can be read: {error}") from None


class _CorpusPictures:
    """The pictures of a config's corpus by their keys: kept ones in its tars, quarantined ones in its evidence."""

    def __init__(self, config: Config):
        output = Output.of(config.output)
        self._corpus, self._evidence = output.store, output.evidence
        self._places: dict[int, dict[str, tuple[Status, int, int, str]]] = {}

    def read(self, key: str) -> np.ndarray:
        shard = int(key[:6]) if key[:6].isdecimal() else -1
        status, offset, length, sha256 = self._shard(shard, key)
        kept = status is Status.ok
        store, tar = (self._corpus, layout.tar(shard)) if kept else (self._evidence, layout.quarantine_tar(shard))
        try:
            data = store.read_range(tar, offset, length)
        except FileNotFoundError:
            raise ConfigError(f"{store.url}/{tar}: is not there, and so not the picture {key}; purged?") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ConfigError(f"{store.url}/{tar}: {key} is damaged; `lacuna verify` tells more")
        return _decode(data, key)

    def _shard(self, shard: int, key: str) -> tuple[Status, int, int, str]:
        if shard not in self._places:
            try:
                rows = read_rows(self._corpus.read(layout.manifest(shard))) if shard >= 0 else ()
            except FileNotFoundError:
                rows = ()
            self._places[shard] = {
                row.key: (row.status, row.offset, row.length, row.sha256 or "")
                for row in rows
                if row.offset is not None and row.length is not None
            }
        if key not in self._places[shard]:
            raise ConfigError(f"{self._corpus.url}: has no picture of the key {key!r} (of output.path in the config)")
        return self._places[shard][key]
