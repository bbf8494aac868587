"""Figures as they come, in a file that a later call goes on with.

The file is one of results (``pipeline/evaluation/results``), written anew with each figure. ``figures`` has a part for
each card, torch and commit (``key``): what another one found is kept beside, and never taken for this one's.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError
from pipeline.evaluation.results import ROOT, machine, read_result, write_result
from pipeline.version import this_version

WHAT = "Images/s, share of the roofline and compiling on one GPU, beside plain diffusers, at full size"
CODE = ("pipeline", "jobs/gpu")  # what a figure is of, where no commit is known that has it


@dataclass
class Ledger:
    """What was found: ``figures[family][figure]`` of this card, torch and commit. Without a *path* it is not kept."""

    path: Path | None
    key: str
    device: str
    size: str
    all: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None, device: str, size: str) -> "Ledger":
        """Read what is there. Raises ``ConfigError`` for a file that is not this measurement's."""
        found: dict[str, Any] = {"what": WHAT, "figures": {}}
        if path is not None and path.exists():
            found = read_result(path)
        if found["what"] != WHAT:
            raise ConfigError(f"{path}: holds another measurement ({found['what']}); expected one of gpu_check.py")
        return cls(path, key_here(device, size), device, size, dict(found["figures"]))

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.all.setdefault(self.key, {})
        return found

    @property
    def digest(self) -> str:
        """The key, as the name of a folder."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:12]

    def code(self, scratch: Path) -> Path:
        """Return the folder of what is compiled: beside the file, for a later call, or in *scratch*."""
        return (scratch if self.path is None else self._folder) / self.digest

    @property
    def _folder(self) -> Path:
        assert self.path is not None
        return self.path.with_suffix(".compiled")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While inside, no other process of this machine writes to the file: ``ConfigError`` where one does."""
        if self.path is None:
            yield
            return
        try:
            self._folder.mkdir(exist_ok=True)
            folder = os.open(self._folder, os.O_RDONLY)
        except OSError as error:
            raise ConfigError(f"{self._folder}: is no folder for compiled code ({error.strerror})") from error
        with ExitStack() as stack:
            stack.callback(os.close, folder)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{self.path}: another call writes to it; expected one at a time") from None
            yield

    def has(self, family: str, figure: str) -> bool:
        return figure in self.figures.get(family, {})

    def put(self, family: str, figure: str, value: Mapping[str, Any]) -> None:
        """Write a figure down."""
        self.figures.setdefault(family, {})[figure] = dict(value)
        if self.path is not None:
            config = {"size": self.size, "newest": self.key}
            write_result(self.path, what=WHAT, config=config, figures=self.all, environment=machine(self.device))


def key_here(device: str, size: str) -> str:
    """Name the card (or CPU), the torch and the code of this process."""
    card = torch.cuda.get_device_name() if device == "cuda" else machine()["cpu"]
    return f"{card} | torch {torch.__version__} | {size} | {code_here()}"


def code_here() -> str:
    """Return the commit where the code is as it has it, else the code's own digest."""
    known = this_version("jobs/gpu")
    if "commit" in known and not known.get("changed"):
        return str(known["commit"])[:12]
    digest = hashlib.sha256()
    for file in sorted(file for folder in CODE for file in (ROOT / folder).rglob("*.py")):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return f"code {digest.hexdigest()[:12]}"
