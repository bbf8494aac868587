"""Results as data: what a measurement found, and the command, commit, config, machine and day that made it.

One JSON file a measurement, in this folder (erasure and the built-in model) or in ``jobs/results/`` (speed, memory,
survival), written by the command that measures where it is given ``--results FILE``. ``make tables`` renders the tables
of the READMEs from these files; a figure stands on a page in no other way. What a file holds:

- ``what``, ``command``: a sentence, and the command line that measures it again;
- ``date`` (ISO), ``version`` (``version``, ``commit``, ``changed``: see ``pipeline.version``);
- ``environment``: ``cpu``, ``cores`` (that this process may use), ``load`` (of the machine, before), ``python`` and the
  packages' versions; on a GPU ``gpu`` and ``cuda``;
- ``config``: what the command was asked for; ``figures``: what it found, by names of the command's own;
- ``transcribed`` (true or absent): the figures were printed by an earlier run and taken from the page ``source``; then
  ``version`` and ``date`` are those of the commit that wrote them down, and ``environment`` is what that page tells.
"""

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.files import write_whole
from pipeline.version import this_version

KEYS = ("what", "command", "date", "version", "environment", "config", "figures")
ROOT = Path(__file__).parents[3]
PACKAGES = ("torch", "diffusers", "transformers", "ray")
OPTION = "--results"


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the option ``--results FILE``; ``args.results`` is a ``Path`` or None."""

    def file(text: str) -> Path:
        try:
            return results_file(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    parser.add_argument(OPTION, type=file, metavar="FILE", help="write what was found there as JSON (make tables)")


def results_file(text: str) -> Path:
    """Return the file that ``--results`` named; ``ConfigError`` where none can be written: measuring takes long."""
    path = Path(text)
    if path.is_dir():
        raise ConfigError(f"{text}: is a folder; expected a file, such as {path / 'results.json'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{text}: cannot be written ({error.strerror})") from error
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{text}: cannot be written, {path.parent} is not yours to write to")
    return path


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return what figures of time and memory depend on besides code and config. Take it before the measurement."""
    found: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: known for name in PACKAGES if (known := _version(name))},
    }
    if device != "cpu":
        import torch

        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found


def write_result(
    path: Path, *, what: str, config: Mapping[str, Any], figures: Mapping[str, Any], environment: Mapping[str, Any]
) -> None:
    """Write one measurement's file, whole or not at all. Figures are plain JSON: no NaN, no infinity.

    Raises ``StoreError`` where it cannot be written.
    """
    known = this_version("jobs", "configs")
    result = {
        "what": what,
        "command": command_line(sys.argv),
        "date": datetime.now(UTC).date().isoformat(),
        "version": {key: known[key] for key in ("version", "commit", "changed") if key in known},
        "environment": dict(environment),
        "config": dict(config),
        "figures": dict(figures),
    }
    write_whole(path, (json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())


def read_result(path: Path) -> dict[str, Any]:
    """Return a result that ``write_result`` wrote, or that was transcribed; ``ConfigError`` where *path* is none."""
    try:
        result: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: is missing; the command that measures it writes it ({OPTION} {path})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error})") from error
    missing = [key for key in KEYS if key not in result] if isinstance(result, dict) else KEYS
    if missing:
        raise ConfigError(f"{path}: has no {missing[0]!r}, so no measurement wrote it")
    return result


def command_line(argv: list[str]) -> str:
    """Return the command that *argv* was, as one types it in a checkout, without ``--results FILE``."""
    program, *rest = argv
    words = []
    while rest:
        word = rest.pop(0)
        if word == OPTION:
            rest = rest[1:]
        elif not word.startswith(OPTION + "="):
            words.append(word)
    script = Path(program).resolve()
    if script.is_relative_to(ROOT / "jobs"):
        return shlex.join(["python", script.relative_to(ROOT).as_posix(), *words])
    return shlex.join(["lacuna", *words])


def _cpu() -> str:
    """The CPU's model as Linux tells it; its kind where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
