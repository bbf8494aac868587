"""Rows and encoded pictures to tars: deterministic bytes that follow webdataset's conventions.

Knows nothing of stores and commits. A member's bytes are a function of the row and its picture; the headers hold no
time, user or host. Nothing of the prompt gets into a training tar: neither as text nor in the .json, and no name of a
concept either, since a trainer may feed on any field.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pipeline.corpus.manifest import ManifestRow, Status

BLOCK = tarfile.BLOCKSIZE  # 512 bytes: headers and padding
RECORD = tarfile.RECORDSIZE  # 10,240 bytes: an archive ends with zeros up to a multiple of it


class NotAPicture(ValueError):
    """Bytes that begin as no picture does."""


@dataclass(frozen=True)
class Digest:
    """Size in bytes and hex digests of one file."""

    size: int
    sha256: str
    md5: str

    @classmethod
    def of(cls, data: bytes) -> "Digest":
        return cls(len(data), hashlib.sha256(data).hexdigest(), hashlib.md5(data, usedforsecurity=False).hexdigest())


class Member(NamedTuple):
    """One file of a tar: its name, and its bytes at ``offset``."""

    name: str
    offset: int
    size: int


def build_tar(
    path: Path, rows: Iterable[ManifestRow], images: Mapping[str, bytes], status: Status, *, empty: bool = False
) -> tuple[list[ManifestRow], Digest | None]:
    """Write the tar of all rows of one *status* to the local file *path*.

    Returns all rows, sorted by key, those in the tar with sha256, offset and length of their picture; and the tar's
    digest. Where no row has that status the tar has no members or, unless *empty*, is not written: then the digest is
    None. ``KeyError`` if a row's picture is missing.
    """
    ordered = sorted(rows, key=lambda row: row.key)
    if not empty and not any(row.status is status for row in ordered):
        return ordered, None
    described = members if status is Status.ok else evidence_members
    result = []
    with open(path, "wb") as file:
        tar = _HashingTar(file)
        for row in ordered:
            if row.status is status:
                image = images[row.key]
                row = replace(row, sha256=hashlib.sha256(image).hexdigest(), length=len(image))
                row = replace(row, offset=tar.position + BLOCK)  # the picture is a sample's first member
                for name, data in described(row, image_extension(image), image):
                    tar.add(name, data)
            result.append(row)
        return result, tar.close()


class Placed(NamedTuple):
    """A row that may be trained on, as ``layout_of`` asks for it: columns of the manifest."""

    key: str
    caption: str
    seed: int
    width: int
    height: int
    sha256: str
    offset: int
    length: int


def members(row: ManifestRow | Placed, extension: str, image: bytes) -> list[tuple[str, bytes]]:
    """Return the members of one sample of a training tar, in order."""
    facts = {"key": row.key, "seed": row.seed, "width": row.width, "height": row.height, "sha256": row.sha256}
    return [
        (f"{row.key}.{extension}", image),
        (f"{row.key}.txt", row.caption.encode()),
        (f"{row.key}.json", _json(facts)),
    ]


def evidence_members(row: ManifestRow, extension: str, image: bytes) -> list[tuple[str, bytes]]:
    """Return the members of one sample of a quarantine tar, which is not for training and hides nothing."""
    facts = {
        "key": row.key,
        "prompt": row.prompt,
        "seed": row.seed,
        "reason": row.reason,
        "scores": _single(row.scores),
        "gates": _single(row.gates),
        "sha256": row.sha256,
    }
    return [
        (f"{row.key}.{extension}", image),
        (f"{row.key}.txt", row.prompt.encode()),
        (f"{row.key}.json", _json(facts)),
    ]


def layout_of(row: Placed, extension: str) -> list[Member]:
    """Return where the members of *row* lie in its training tar, without reading the tar."""
    placed, position = [], row.offset - BLOCK
    for i, (name, data) in enumerate(members(row, extension, b"")):
        size = len(data) if i else row.length
        placed.append(Member(name, position + BLOCK, size))
        position += BLOCK + _padded(size)
    return placed


def image_extension(image: bytes) -> str:
    """Return jpg, png or webp from a picture's own first bytes, so that a member's name cannot lie."""
    if image.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    raise NotAPicture(f"not a JPEG, PNG or WebP picture: it begins with {image[:12]!r}")


def _single(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores in single precision, as the manifest keeps them: a tar can then be checked against its manifest."""
    return {name: float(np.float32(score)) for name, score in scores.items()}


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _json(facts: dict[str, Any]) -> bytes:
    return _ENCODER.encode(facts).encode()


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


class _HashingTar:
    """A ustar writer of plain files that hashes as it writes, so that a tar is never read again to be hashed."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)  # wids wants it
        self.position = 0

    def add(self, name: str, data: bytes) -> None:
        header = tarfile.TarInfo(name)  # mtime, uid, gid are 0 and user and group empty by default
        header.size = len(data)
        header.mode = 0o644
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        self._write(data)
        self._write(bytes(_padded(len(data)) - len(data)))

    def close(self) -> Digest:
        end = self.position + 2 * BLOCK  # two empty blocks end an archive
        self._write(bytes((end + RECORD - 1) // RECORD * RECORD - self.position))
        return Digest(self.position, self._sha256.hexdigest(), self._md5.hexdigest())

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._md5.update(data)
        self.position += len(data)
