"""Where parquet files lie: local paths and globs, s3://, gs:// and abfs:// through Arrow, https:// through fsspec.

Credentials come from the environment, as each of them documents. Everything found here may be pickled.
"""

import glob
import re
from dataclasses import dataclass
from fnmatch import fnmatch

import pyarrow as pa
from pyarrow import fs

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """One file: ``path`` as its file system calls it, ``name`` as the user does, ``size`` in bytes."""

    files: fs.FileSystem
    path: str
    name: str
    size: int
    etag: str = ""

    def open(self) -> pa.NativeFile:
        """Open the file for reading at random. Raises ``ConfigError`` where that fails."""
        try:
            return self.files.open_input_file(self.path)
        except OSError as error:
            raise ConfigError(f"prompts.source: {self.name}: {_first_line(error)}") from None


def find(source: str) -> list[Place]:
    """Return the files that *source*, a path, a URL or either with ``*``, stands for, sorted by name.

    Raises ``ConfigError`` where there is none, or where it cannot be reached.
    """
    try:
        if "://" not in source:
            places = _local(source)
        elif source.startswith(("http://", "https://")):
            places = _web(source)
        else:
            places = _bucket(source)
    except (OSError, ValueError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"prompts.source: {source}: {_first_line(error)}") from None
    if not places:
        raise ConfigError(f"prompts.source: {source}: no such file")
    return sorted(places, key=lambda place: place.name)


def _local(source: str) -> list[Place]:
    files = fs.LocalFileSystem()
    paths = glob.glob(source, recursive=True) if glob.has_magic(source) else [source]
    infos = files.get_file_info(paths) if paths else []
    return [Place(files, info.path, info.path, info.size) for info in infos if info.type == fs.FileType.File]


def _bucket(source: str) -> list[Place]:
    uri, _, options = source.partition("?")  # options are Arrow's, such as endpoint_override=...&scheme=http
    query = f"?{options}" if options else ""
    scheme = uri.partition("://")[0]
    if not glob.has_magic(uri):
        files, path = fs.FileSystem.from_uri(uri + query)
        infos = [files.get_file_info(path)]
    else:
        folder = re.split(r"[*?\[]", uri)[0].rpartition("/")[0]
        files, path = fs.FileSystem.from_uri(folder + query)
        pattern = path + uri.removeprefix(folder)
        infos = files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        infos = [info for info in infos if fnmatch(info.path, pattern)]
    return [Place(files, i.path, f"{scheme}://{i.path}", i.size) for i in infos if i.type == fs.FileType.File]


def _web(source: str) -> list[Place]:
    import fsspec

    web = fsspec.filesystem("http")
    info = web.info(source)
    if info["size"] is None or not info.get("partial", True):
        raise ConfigError(f"prompts.source: {source}: the server does not serve parts of files; download it")
    return [Place(fs.PyFileSystem(fs.FSSpecHandler(web)), source, source, info["size"], info.get("ETag", ""))]


def _first_line(error: Exception) -> str:
    if error.__cause__ is not None and isinstance(error, FileNotFoundError):  # fsspec's, of whatever went wrong
        error = error.__cause__  # type: ignore[assignment]
    strerror = getattr(error, "strerror", None)
    return strerror or (str(error).splitlines() or [type(error).__name__])[0]
