"""Checkpoints of transformers that a detector looks with: found in a folder or on the hub, and loaded whole or refused.

The rules are those of the product's own models: a hub id is pinned to its commit, only safetensors are read, and no
code that lies beside the weights is run.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from huggingface_hub import snapshot_download

from pipeline.audit.detector import Detector
from pipeline.audit.preparation import Preparation
from pipeline.config.schema import DType
from pipeline.errors import ConfigError, nearest
from pipeline.models.files import check_fetched, loaded_files, read_settings
from pipeline.models.hub import asking_the_hub
from pipeline.models.parts import load_network
from pipeline.paths import is_hub_id

P = ParamSpec("P")
R = TypeVar("R")
_FETCHED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors", "README.md"]


@dataclass(frozen=True)
class Checkpoint:
    """One that is on this machine. ``where`` begins each message about it; ``commit`` is None for a folder's."""

    where: str
    folder: Path
    name: str
    commit: str | None
    config: Mapping[str, Any]

    @classmethod
    def find(cls, detector: str, model: str, revision: str | None) -> "Checkpoint":
        """Find *model*, a folder or a hub id, for a *detector*; one on the hub is fetched. Raises ``ConfigError``."""
        _quieten()
        where = f"{detector}: model: {model}"
        folder, commit = Path(model).expanduser(), None
        if folder.is_dir():
            if revision is not None:
                raise ConfigError(f"{detector}: revision: {model} is a local folder, which has no revisions")
        elif is_hub_id(model):
            with asking_the_hub(where, model, revision):
                fetched = snapshot_download(model, revision=revision, allow_patterns=_FETCHED, ignore_patterns=["*/*"])
            folder = Path(fetched)
            commit = folder.name  # the cache keeps each commit's files under snapshots/<commit>/
        else:
            raise ConfigError(f"{where} is neither a folder here nor a hub id (owner/name)")
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{where} has no config.json; expected what save_pretrained of transformers writes")
        check_fetched(where, loaded_files(folder, None))
        return cls(where, folder, model, commit, read_settings(where, folder, "config.json"))

    @property
    def files(self) -> list[Path]:
        """What loading it may read."""
        return [*loaded_files(self.folder, None), *sorted(self.folder.glob("*.jinja"))]

    @property
    def licence(self) -> str:
        """What its model card says, or that it has none."""
        card = self.folder / "README.md"
        text = card.read_text(errors="replace") if card.is_file() else ""
        front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        stated = re.search(r"^license: *(\S+)", front[1], re.MULTILINE) if front else None
        return stated[1] if stated else "not stated beside its weights"

    def network(self, classes: Mapping[str, str], what: str, dtype: torch.dtype, device: torch.device) -> Any:
        """Load the network, of the class that *classes* have for its model_type, in ``eval`` mode onto *device*.

        Raises ``ConfigError`` for a type that is not among them (it does not do *what*), and for weights that are not
        whole.
        """
        import transformers

        type_ = str(self.config.get("model_type", "none"))
        network_class = getattr(transformers, classes.get(type_, ""), None)
        if network_class is None:
            known = sorted(classes)
            some = ", ".join(known) if len(known) < 10 else f"those of transformers, such as {', '.join(known[::9])}"
            raise ConfigError(
                f"{self.where} is of the type {type_!r}, which does not {what}{nearest(type_, classes)}; expected one "
                f"of {some}"
            )
        return placed(load_network(self.where, network_class, self.folder, dtype, None), device)

    def preparation(self) -> Preparation:
        """Return what prepares pictures for it."""
        return Preparation(self.where, self.folder)

    def tokenizer(self) -> Any:
        """Return its tokenizer; ``ConfigError`` where it has none that can be read, whole."""
        tokenizer = self._auto("AutoTokenizer", "tokenizer")
        known, wanted = len(tokenizer), self._vocabulary
        if known < wanted / 2:  # the library makes one of its few special tokens where the files are not there
            raise ConfigError(
                f"{self.where}: its tokenizer knows {known} of the {wanted} tokens that its config.json asks for; is a "
                "file of it missing?"
            )
        return tokenizer

    @property
    def _vocabulary(self) -> int:
        """How many tokens it reads, or 0 where only the defaults of its class tell."""
        text = self.config.get("text_config")
        size = (text if isinstance(text, dict) else self.config).get("vocab_size", 0)
        return size if isinstance(size, int) else 0

    def processor(self) -> Any:
        """Return its processor of texts and pictures, those with Pillow; ``ConfigError`` where it has none."""
        return self._auto("AutoProcessor", "processor", backend="pil")

    def _auto(self, name: str, what: str, **options: Any) -> Any:
        import transformers

        try:
            return getattr(transformers, name).from_pretrained(str(self.folder), trust_remote_code=False, **options)
        except (OSError, ValueError, ImportError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{self.where}: its {what} cannot be loaded: {reason[:200]}") from error


class Looking:
    """What looks with one checkpoint, ``batch`` pictures at a time.

    Of a picture it tells the same alone and among others, to 1e-4 in float32 and 2e-2 in half precision, in which sums
    are rounded by the shape of a batch. A run's batches are fixed, so what it tells in one is too.
    """

    def __init__(self, name: str, device: str, model: str, revision: str | None, dtype: DType, batch: int):
        """*name* is what a config calls it. Raises ``ConfigError`` for options that cannot be, and as
        ``Checkpoint.find`` does."""
        if batch < 1:
            raise ConfigError(f"{name}: batch: {batch} is no number of pictures; expected 1 or more")
        self.batch = batch
        self.torch_device = torch.device(device)
        self._queue = torch.cuda.Stream(self.torch_device) if self.torch_device.type == "cuda" else None
        self.dtype = half_on_gpu(dtype, self.torch_device)
        self.checkpoint = Checkpoint.find(name, model, revision)

    def files(self) -> Sequence[Path]:
        return self.checkpoint.files

    def about(self) -> dict[str, str]:
        return {
            "model": self.checkpoint.folder.name if self.checkpoint.commit is None else self.checkpoint.name,
            "revision": self.checkpoint.commit or "",
            "dtype": str(self.dtype).removeprefix("torch."),
            "licence": self.checkpoint.licence,
        }

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Without gradients; on a GPU in a queue of its own, so that it waits for no batch that is drawn meanwhile."""
        with torch.inference_mode(), torch.cuda.stream(self._queue) if self._queue is not None else nullcontext():
            yield

    def chunks(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Cut *images*, ``(B, H, W, 3)``, into batches."""
        for start in range(0, len(images), self.batch):
            yield images[start : start + self.batch]


class CheckpointDetector(Looking, Detector):
    """A detector that looks with one checkpoint."""

    detector = ""  # its name in a config

    def __init__(self, device: str, model: str, revision: str | None, dtype: DType, batch: int):
        """Raises ``ConfigError`` as ``Looking`` does."""
        Detector.__init__(self, device)
        Looking.__init__(self, self.detector, device, model, revision, dtype, batch)


def in_own_queue(look: Callable[P, R]) -> Callable[P, R]:
    """Have a method *look* of what looks within ``looking``."""

    @wraps(look)
    def looked(*args: P.args, **keywords: P.kwargs) -> R:
        owner = args[0]
        assert isinstance(owner, Looking)
        with owner.looking():
            return look(*args, **keywords)

    return looked


def placed(network: Any, device: torch.device) -> Any:
    """Return *network* on *device*, where it is whole before anyone looks with it, in whatever queue."""
    network = network.requires_grad_(False).eval().to(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return network


def half_on_gpu(dtype: DType, device: torch.device) -> torch.dtype:
    """Return *dtype*; for "auto" float16 on a GPU, and float32 on a CPU."""
    if dtype is DType.auto:
        return torch.float16 if device.type == "cuda" else torch.float32
    found: torch.dtype = getattr(torch, dtype.value)
    return found


def _quieten() -> None:
    """The library's bars and hints would fill every worker's log."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
