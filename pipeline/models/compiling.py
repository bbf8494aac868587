"""``generation.compile``: what ``auto`` comes to, and what compiles here. How a model is compiled is of ``generation``.

Compiling is for GPUs. It takes a minute or more before the first picture, so it has to be worth it: see
``Family.repays``. Imports torch only where a GPU may be at hand, or something is to be compiled.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.config.schema import Config, DType
from pipeline.config.sections.generation import Compile
from pipeline.errors import ConfigError
from pipeline.models.dtype import fast_dtype
from pipeline.models.find import find_model

C_COMPILERS = ("gcc", "clang", "cc")  # with one of them Triton builds what launches its kernels
LEAST_TORCH = "2.9"  # 2.8 makes no one graph of a decoder; 2.7 has no cache that is a kind's own
# Variables of torch's, and to what they are set where nothing is compiled, or nothing of it kept.
OFF = {
    "TORCHDYNAMO_DISABLE": "1", "TORCH_COMPILE_DISABLE": "1", "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "TORCH_COMPILE_FORCE_DISABLE_CACHES": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Hardware:
    """What a worker's device, of this *kind* ("cuda" or "cpu"), can do: *dtype* fast, and what keeps it from
    compiling, in words, or None. Of a CPU the latter is not asked."""

    kind: str
    dtype: DType
    obstacle: str | None

    @property
    def compiles(self) -> bool:
        """Can and should anything be compiled for it, where there is enough to draw?"""
        return self.kind == "cuda" and self.obstacle is None


def hardware(kind: str) -> Hardware:
    """Describe the device of that *kind* on this machine."""
    return Hardware(kind, fast_dtype(kind), obstacle(kind) if kind == "cuda" else None)


@dataclass(frozen=True)
class Work:
    """What there is to do, as far as it decides on compiling: *pictures* counts them; *check* raises ``ConfigError``
    where a config's recipe cannot be compiled as that config says. Both are asked only where it comes to them."""

    pictures: Callable[[], int] = lambda: 0
    check: Callable[[Config], object] = lambda config: None


def settle_compile(config: Config, device: Hardware, work: Work) -> tuple[Config, str]:
    """Return *config* with a ``generation.compile`` of ``auto`` replaced, and a line that says by what and why, or "".

    Raises ``ConfigError`` as ``find_model`` does.
    """
    if config.generation.compile is not Compile.auto:
        return config, ""
    chosen, why = _chosen(config, device, work)
    return with_compile(config, chosen), f"generation.compile: auto is {chosen}, {why}"


def with_compile(config: Config, compile: Compile) -> Config:
    """Return *config* with this ``generation.compile``."""
    return replace(config, generation=replace(config.generation, compile=compile))


def check_compiler(compile: Compile, kind: str) -> None:
    """Raise ``ConfigError`` where *compile* asks for what a device of that *kind* on this machine cannot have."""
    if compile is not Compile.none and (why := obstacle(kind)) is not None:
        raise ConfigError(f"generation.compile: is {compile}, but {why}; expected none here, or auto")


def obstacle(kind: str) -> str | None:
    """Return, in words, what keeps a device of that *kind* ("cuda" or "cpu") from compiling on this machine."""
    import torch

    if torch.__version__ < LEAST_TORCH:
        return f"torch {torch.__version__} makes no whole graphs of these models, as torch {LEAST_TORCH} and later do"
    if (setting := _turned_off()) is not None:
        return f"{setting} is set in the environment, with which torch compiles nothing or keeps nothing of it"
    if kind == "cpu":
        return None if cxx() else "no C++ compiler is found (g++, or what CXX names)"
    from torch.utils._triton import has_triton

    if not has_triton():
        return "Triton is not installed, or does not know this GPU"
    found = [name for name in filter(None, (os.environ.get("CC"), *C_COMPILERS)) if shutil.which(name)]
    return None if found else f"no C compiler is found for Triton ({', '.join(C_COMPILERS)}, or what CC names)"


def cxx() -> str | None:
    """Return the version of the C++ compiler that inductor would use on a CPU, or None where it finds none."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        name = get_cpp_compiler()
    except InvalidCxxCompiler:
        return None
    told = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
    return told.stdout.splitlines()[0]


def _turned_off() -> str | None:
    """Return the environment variable that turns torch's compiler off, or its cache, of which code is pinned."""
    set_to = ((name, os.environ.get(name)) for name in OFF)
    return next((f"{name}={value}" for name, value in set_to if value == OFF[name]), None)


def _chosen(config: Config, device: Hardware, work: Work) -> tuple[Compile, str]:
    if device.kind == "cpu":
        return Compile.none, "as on every CPU"
    if device.obstacle is not None:
        return Compile.none, f"because {device.obstacle}"
    family, generation = find_model(config.model).family(), config.generation
    width, height = generation.pixels
    rows = 2 if generation.guidance > 1 and "guidance" in family.offers else 1
    least = -(-family.repays * 1e6 // (generation.steps * rows * width * height))
    count = work.pictures()
    if count < least:
        return Compile.none, f"because it pays from {least:,.0f} pictures on, and here are {count:,}"
    try:
        work.check(with_compile(config, family.compiled))
    except ConfigError as error:
        return Compile.none, f"because {error}"
    return family.compiled, f"which pays from {least:,.0f} pictures on, and here are {count:,}"
