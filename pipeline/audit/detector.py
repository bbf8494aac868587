"""The contract of a detector: it looks at finished pictures and gives a probability for each term it is asked about.

It knows nothing of prompts, policies or files, so that its eye cannot be swayed by what was asked for.
"""

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from pipeline.concepts.term import Term
from pipeline.config.options import read_keywords
from pipeline.config.sections.audit import DetectorConfig
from pipeline.errors import ConfigError, named_in_errors
from pipeline.registry import DETECTORS, load_class

T = TypeVar("T")


@dataclass(frozen=True)
class Sight:
    """What a detector saw in B pictures of T terms.

    ``scores``: probabilities, float32 ``(B, T)`` in [0, 1]. ``boxes``: where each term is seen best, float32
    ``(B, T, 4)`` as x0, y0, x1, y1 in pixels from the upper left, NaN where there is none; None from a detector that
    tells no places.
    """

    scores: np.ndarray
    boxes: np.ndarray | None = None


class Detector(ABC):
    """Sees terms (a concept, an anchor) in pictures. A ``Term`` is a ``str``, the name, and holds words, kind and
    reference pictures besides.

    A subclass is constructed as ``Subclass(device, **options)``, with the config's ``options`` as keywords: they
    are held to the names of its constructor's parameters, and to their types where those are annotated. One that has no
    options, and loads nothing onto a device, needs no constructor. It is deterministic, the same pictures
    give the same scores in one environment, unless it says otherwise: then nobody promises that a corpus which was
    gone on with has the bytes of one that was not.
    """

    deterministic: ClassVar[bool] = True
    licence: str = ""  # of its weights, as SPDX or in words

    def __init__(self, device: str) -> None:
        self.device = device

    def files(self) -> Sequence[Path | str]:
        """Return the files of its weights. What is in them is pinned when a corpus is begun, and a changed file is
        refused when it is gone on with. Those that an option names are pinned in any case."""
        return ()

    def about(self) -> dict[str, str]:
        """Tell what it is: model, revision, dtype and licence, as far as they are known. That goes into the run's
        record, its card and its report, and a corpus is gone on with only by a detector that tells the same."""
        return {"licence": self.licence} if self.licence else {}

    def fingerprint(self, asked: Sequence[str] = ()) -> dict[str, bool]:
        """Tell one that is not deterministic by what it says: question and whether it says yes. *asked* are those that
        it was asked when the corpus was begun; without them it chooses fixed ones that it is sure of. It is asked
        whenever a worker starts, and another answer is another detector."""
        return {}

    @abstractmethod
    def knows(self, term: Term) -> bool:
        """Tell whether *term* can be judged at all."""

    def takes(self, width: int, height: int) -> bool:
        """Tell whether pictures of so many pixels can be judged."""
        return True

    @abstractmethod
    def threshold(self, term: Term) -> float:
        """Return the probability from which *term* counts as seen, unless the config sets another."""

    @abstractmethod
    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        """Return probabilities, float32 ``(B, len(terms))`` in [0, 1], for *images*, uint8 ``(B, H, W, 3)``."""

    def see(self, images: np.ndarray, terms: Sequence[Term]) -> Sight:
        """Return scores, as ``score`` does, with boxes where the detector has them. Audits ask this one."""
        return Sight(self.score(images, terms))


def detector_class(config: DetectorConfig, where: str) -> tuple[type[Detector], dict[str, Any]]:
    """Return the class that the config names under the key *where*, and its options; ``ConfigError`` for an unknown
    name or option, an option of a wrong type, or a class that is unfinished."""
    found: type[Detector] = load_class("detector", config.detector, DETECTORS, Detector, f"{where}.detector")
    check_finished(f"{where}.detector: {config.detector}", found, "knows, threshold and score")
    return found, read_keywords(f"{where}.options", config.detector, found, 1, config.options)


def check_finished(what: str, found: type, expected: str) -> None:
    """Raise ``ConfigError`` where the class *found*, named by *what*, leaves something of its contract undefined."""
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ConfigError(f"{what} does not define {', '.join(missing)}; expected {expected}")


def load_detector(config: DetectorConfig, device: str, where: str) -> Detector:
    """Build the detector that the config names under the key *where*. Raises ``ConfigError`` as ``detector_class`` and
    the detector's own constructor do."""
    return constructed(*detector_class(config, where), device, where)


def constructed(found: Callable[..., T], options: Mapping[str, Any], device: str, where: str) -> T:
    """Return what the class *found* makes of *options*; its ``ConfigError`` begins with the key *where*, and other
    errors are named (see ``named_in_errors``)."""
    try:
        with named_in_errors(f"{where}: {found.__name__}"):
            return found(device, **options)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


class Weighted(Protocol):
    """What has ``Detector.files``."""

    def files(self) -> Sequence[Path | str]: ...


def weights_digest(detector: Weighted, options: Mapping[str, Any]) -> str:
    """Return "sha256:…" over the files of the detector's weights and of its code, or "" where there are none.

    Weights are ``files`` and what *options* name: a file, or all in a folder that is written with a "/", as a
    word may be a folder's name by chance. Code is the file of the class, unless it is one of ours, whose commit is on
    record. Where they lie does not matter.
    """
    code = sys.modules[type(detector).__module__]
    ours = code.__name__.partition(".")[0] == __name__.partition(".")[0]
    files = [] if ours or not code.__file__ else [Path(code.__file__)]
    return files_digest([*files, *map(Path, detector.files()), *named_files(options.values())])


def named_files(values: Iterable[Any]) -> list[Path]:
    """Return those of *values* that are a file, or a folder that is written with a "/"."""
    texts = [value for value in values if isinstance(value, str)]
    return [Path(text) for text in texts if Path(text).is_file() or ("/" in text and Path(text).is_dir())]


def files_digest(paths: Iterable[Path]) -> str:
    """Return "sha256:…" over the names and bytes of the files *paths* and of those in its folders; "" of none.

    A link has its own name and the bytes of its target: a hub's cache and a folder of the same files are alike.
    """
    found = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files: dict[Path, Path] = {}  # each once, however often it is named
    for file in found:
        if not file.is_dir():
            files.setdefault(file.resolve(), file)
    lines = []
    for file in files.values():
        with file.open("rb") as opened:
            lines.append(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}")
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}" if lines else ""
