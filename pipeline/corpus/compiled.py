"""Compiled code that is pinned in a corpus: ``compiled/NAME.json`` says whose it is, ``compiled/SHA256.bin`` is it.

The name tells the corpus, the environment and the kind of forward, and the record is created only if absent: whoever
compiles first decides, and all others load it, so that all draw with the same code. What another environment has
compiled lies beside it. Code that does not load where it should is set aside, if that is accepted, by a record with the
next number; nothing is ever replaced.

Code is written before its record, so whoever dies between leaves code that no record names: nobody runs it, and
``finish`` removes it. It may do so while somebody else is between the two, who then writes the code again.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.corpus import layout
from pipeline.corpus.stores import Store, create_or_read
from pipeline.errors import ConfigError, CorpusError

_ANEW = (
    "where its bytes cannot be had back, delete {}: the code is compiled anew, and pictures may come out otherwise "
    "than those already committed"
)


@dataclass(frozen=True, kw_only=True)
class CompiledRecord:
    """The code of a *kind* of forward: its *file*, of *size* bytes, and in which *environment* it was compiled for the
    corpus of which *identity*."""

    kind: str
    file: str
    size: int
    sha256: str
    identity: str
    environment: dict[str, Any]

    def dumps(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode()

    @classmethod
    def loads(cls, data: bytes, path: str) -> "CompiledRecord":
        """Raise ``CorpusError`` for what is none."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise CorpusError(f"{path}: not a record of compiled code ({error}); {_ANEW.format(path)}") from error


class PinnedCode:
    """The compiled code of one corpus for one environment: ``generation.compilation.Artifacts``."""

    def __init__(self, store: Store, identity: str, environment: Mapping[str, Any], *, accept_environment: bool):
        self._store, self._identity, self._environment = store, identity, dict(environment)
        self._accept = accept_environment
        here = hashlib.sha256(json.dumps(self._environment, sort_keys=True).encode()).hexdigest()
        self._prefix = f"{identity[:8]}-{here[:8]}"
        self._number: defaultdict[str, int] = defaultdict(lambda: 1)  # by kind: the record that is to be used

    def find(self, kind: str) -> bytes | None:
        """Return the code that is pinned for *kind*, or None. Raises ``CorpusError`` where it is damaged."""
        path = self._record(kind)
        try:
            record = CompiledRecord.loads(self._store.read(path), f"{self._store.url}/{path}")
        except FileNotFoundError:
            return None
        data, fault = _read(self._store, record)
        if data is None:
            raise CorpusError(f"{self._store.url}/{fault}; {_ANEW.format(path)}")
        return data

    def add(self, kind: str, data: bytes) -> bool:
        """Pin *data* for *kind* unless something is; return whether these bytes stand."""
        sha256 = hashlib.sha256(data).hexdigest()
        file = layout.compiled(f"{sha256}.bin")
        self._store.write(file, data)
        ours = CompiledRecord(
            kind=kind,
            file=file,
            size=len(data),
            sha256=sha256,
            identity=self._identity,
            environment=self._environment,
        ).dumps()
        path = self._record(kind)
        standing = create_or_read(self._store, path, ours)
        if CompiledRecord.loads(standing, f"{self._store.url}/{path}").sha256 != sha256:
            _remove(self._store, [file])
            return False
        if not self._store.exists(file):  # removed before the record named it
            self._store.write(file, data)
        return True

    def set_aside(self, kind: str) -> None:
        """Leave what is pinned for *kind* to others. Raises ``ConfigError`` unless another environment is accepted."""
        if not self._accept:
            raise ConfigError(
                f"{self._store.url}/{self._record(kind)}: this code was compiled in an environment of the same "
                "versions, and torch compiles it anew here, perhaps because its settings (TORCHINDUCTOR_*) or the code "
                "of Lacuna are others, and bytes may differ; run there, or go on here with --accept-environment, which "
                "is recorded"
            )
        self._number[kind] += 1

    def _record(self, kind: str) -> str:
        number = self._number[kind]
        return layout.compiled(f"{self._prefix}-{kind}{f'.{number}' if number > 1 else ''}.json")


def faults(store: Store) -> Iterator[str]:
    """Yield a line for each record of compiled code whose file is not there as it was, and for each that is none."""
    for record in _records(store):
        fault = record if isinstance(record, str) else _read(store, record)[1]
        if fault:
            yield fault


def unnamed(store: Store) -> list[str]:
    """Return the paths of code that no record names; none where a record cannot be read, which may name it."""
    code = [entry.path for entry in store.list(layout.COMPILED) if entry.path.endswith(".bin")]  # before its records
    named = _named(store) if code else None
    return [] if named is None else [path for path in code if path not in named]


def remove_unnamed(store: Store) -> None:
    """Remove the code that no record names; where one comes to name it meanwhile, it stays."""
    _remove(store, unnamed(store))


def _remove(store: Store, paths: Iterable[str]) -> None:
    """Remove code, but not what a record names, or names by the time that it is gone."""
    for path in paths:
        named = _named(store)
        if named is None or path in named:
            continue
        try:
            data = store.read(path)
        except FileNotFoundError:
            continue
        store.delete(path)
        named = _named(store)
        if named is None or path in named:
            store.write(path, data)


def _named(store: Store) -> Set[str] | None:
    """Return the paths of code that records name; None where one of them cannot be read."""
    files = set()
    for record in _records(store):
        if isinstance(record, str):
            return None
        files.add(record.file)
    return files


def _records(store: Store) -> Iterator[CompiledRecord | str]:
    """Yield each record of compiled code, or where it is none, a line that says so."""
    for entry in store.list(layout.COMPILED):
        if not entry.path.endswith(".json"):
            continue
        try:
            yield CompiledRecord.loads(store.read(entry.path), entry.path)
        except CorpusError as error:
            yield str(error)


def _read(store: Store, record: CompiledRecord) -> tuple[bytes | None, str]:
    """Return the code of *record*; None where it is not as recorded, and a line that says so."""
    try:
        data = store.read(record.file)
    except FileNotFoundError:
        return None, f"{record.file}: missing, the compiled code of {record.kind}"
    if hashlib.sha256(data).hexdigest() != record.sha256:
        return None, f"{record.file}: sha256 is not that of its record, the compiled code of {record.kind}"
    return data, ""
