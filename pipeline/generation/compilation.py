"""The denoiser and the VAE's decoder, compiled: whole graphs of static shapes, one for each kind of forward, no other.

A *kind* is what makes a forward another graph: the mode of attention, and the shapes of what goes in. The first forward
of each is compiled, in inductor's default mode (others choose kernels by timing), from the artifacts that were pinned
for it where there are some, and else anew, which pins them. Any other forward that would be compiled is an error that
names the guard: nothing falls back to eager. Kinds share no code, though torch would let blocks share theirs that are
alike in two of them: what is pinned for a kind is all of it, in whatever order a process meets the kinds.

Whether two compilations give the same bytes is not promised by torch: Triton's kernels are chosen by timing in every
mode. So nobody relies on it: what the first worker has compiled is what all others load.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pipeline.config.sections.generation import Compile
from pipeline.errors import ConfigError
from pipeline.models.load import Model

GRAPHS = 1024  # in one process, of one function: beyond any number of kinds, because each is counted here
KEY = "generation.compile"
# What torch says of functions of diffusers that ask for the versions of packages; what they return never changes.
CACHED = "Dynamo detected a call to a `functools.lru_cache`-wrapped function"

Call = Callable[..., Any]


class Artifacts(Protocol):
    """Compiled code that is pinned somewhere, by kind."""

    def find(self, kind: str) -> bytes | None:
        """Return what was pinned for *kind*, None where nothing was or what was is set aside."""

    def add(self, kind: str, data: bytes) -> bool:
        """Pin *data* unless something is pinned; return whether it is these bytes that stand."""

    def set_aside(self, kind: str) -> None:
        """Take note that what was pinned for *kind* cannot be used here. Raises ``ConfigError`` unless that is
        accepted."""


class Compilation:
    """One model, compiled in place, for one engine. ``seconds`` is what compiling and loading took until now; ``busy``
    is called with True when it begins to, and with False when it has."""

    def __init__(
        self,
        model: Model,
        compile: Compile,
        artifacts: Artifacts | None = None,
        say: Callable[[str], object] = lambda line: None,
        backend: str = "inductor",
        earlier: "Compilation | None" = None,
    ):
        """*say* is told of each kind that is compiled. *backend* is one of torch's; only inductor makes artifacts. What
        an *earlier* compilation of the same model, with the same artifacts, has in memory is not loaded again."""
        self.seconds = 0.0
        self.busy: Callable[[bool], object] = lambda begun: None
        self._artifacts, self._say, self._backend = artifacts, say, backend
        self._backends: dict[str, Call] = {} if earlier is None else earlier._backends  # by kind
        self._code: dict[str, Sequence[Call]] = {}  # by kind: what each of the modules runs
        self._running = ""  # the kind whose code they run now
        release(model)
        family = model.family
        self._modules: list[nn.Module] = [family.denoiser] if compile is Compile.full else family.blocks
        if not self._modules:
            raise ConfigError(
                f"{KEY}: is {compile}, and of {type(family.denoiser).__name__} no repeated blocks are known; expected "
                "full or none"
            )
        self._modules.append(family.decoder)

    def knows(self, kind: str) -> bool:
        """Was this kind of forward compiled?"""
        return kind in self._code

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """While inside, a forward that would have to be compiled is an error, but for a new kind in ``run``."""
        try:
            with torch.compiler.set_stance("fail_on_recompile"):
                yield
        except RuntimeError as error:
            if "fail_on_recompile" not in str(error):
                raise
            raise RuntimeError(
                f"{KEY}: a forward of a kind that was compiled would have to be compiled again: {_guard(str(error))}"
            ) from error

    def run(self, kind: str, forward: Callable[[], Tensor]) -> Tensor:
        """Return what *forward* returns, which is of this *kind*; within ``sealed``.

        Raises ``ConfigError`` where it cannot be compiled, or what was pinned for it cannot be used.
        """
        if kind not in self._code:
            return self._first(kind, forward)
        if kind != self._running:
            self._install(self._code[kind])
            self._running = kind
        return forward()

    def _install(self, calls: Sequence[Call]) -> None:
        for module, call in zip(self._modules, calls, strict=True):
            module._compiled_call_impl = call

    def _first(self, kind: str, forward: Callable[[], Tensor]) -> Tensor:
        """Have the code of *kind*, and run it."""
        started = time.perf_counter()
        self.busy(True)
        how = None
        while how is None:
            how = self._have(kind, forward)
        result = forward()  # once more, sealed: what is compiled must hold
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self._say(f"{how} {kind}: {seconds:.1f} s")
        self.busy(False)
        return result

    def _have(self, kind: str, forward: Callable[[], Tensor]) -> str | None:
        """Load the code of *kind*, or compile and pin it, and return which; None where another worker was faster, or
        the code in memory is pinned nowhere any more."""
        pinned = None if self._artifacts is None else self._artifacts.find(kind)
        if pinned is None:
            self._say(f"compiling {kind}, which takes a minute or more")
        own = self._backends.get(kind) or _backend(self._backend)
        calls = [
            torch.compile(module._call_impl, fullgraph=True, dynamic=False, backend=own) for module in self._modules
        ]
        self._install(calls)
        self._running = kind
        with _fresh(self._artifacts is not None):
            if pinned is not None:
                torch.compiler.load_cache_artifacts(pinned)
            before = _Counts.now()
            self._compile(kind, forward)
            made, code = _Counts.now().since(before), torch.compiler.save_cache_artifacts()
        if not made.graphs and kind not in self._backends:
            raise ConfigError(f"{KEY}: torch compiles nothing here, {kind} neither; expected none")
        if self._artifacts is not None:
            if made.graphs > (0 if code is None else made.loaded + made.kept):
                raise ConfigError(f"{KEY}: of {kind} torch keeps nothing that other workers could load; expected none")
            if pinned is not None and made.kept:
                self._artifacts.set_aside(kind)
                pinned = None
            if pinned is None and (code is None or not self._artifacts.add(kind, code[0])):
                self._backends.pop(kind, None)
                return None
        self._backends[kind], self._code[kind] = own, calls
        return "compiled" if pinned is None else "loaded, compiled,"

    def _compile(self, kind: str, forward: Callable[[], Tensor]) -> None:
        from torch._dynamo import config
        from torch._dynamo.exc import TorchDynamoException

        limits = {"recompile_limit": GRAPHS, "accumulated_recompile_limit": GRAPHS}
        try:
            with config.patch(limits), self._one_graph_each(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", CACHED, UserWarning)
                forward()
        except TorchDynamoException as error:
            raise ConfigError(
                f"{KEY}: {kind} cannot be compiled as one graph ({_line(str(error))}); expected none"
            ) from error

    @contextmanager
    def _one_graph_each(self) -> Iterator[None]:
        """While inside, the first of the modules that are alike is compiled, and the others must do with its code."""
        alike: set[Any] = set()

        def guarded(module: nn.Module, call: Call) -> Call:
            built = (type(module), tuple((name, tuple(p.shape)) for name, p in module.named_parameters()))

            def once(*args: Any, **kwargs: Any) -> Any:
                like = (built, _watching(module), tuple(_form(value) for value in (*args, *kwargs.values())))
                if like in alike:
                    return call(*args, **kwargs)
                alike.add(like)
                with torch.compiler.set_stance("default"):
                    return call(*args, **kwargs)

            return once

        with ExitStack() as stack:
            for module in self._modules:
                call = module._compiled_call_impl
                assert call is not None
                stack.callback(setattr, module, "_compiled_call_impl", call)
                module._compiled_call_impl = guarded(module, call)
            yield


def release(model: Model) -> None:
    """Let *model* run as it is, where it was compiled before."""
    for part in (model.family.denoiser, model.family.decoder):
        for module in part.modules():
            module._compiled_call_impl = None


def kind_of(mode: str, *tensors: Tensor | None) -> str:
    """Return the name of a kind: its *mode* and the shapes of what goes in."""
    shapes = ("x".join(map(str, tensor.shape)) for tensor in tensors if tensor is not None)
    return "-".join([mode, *shapes])


@contextmanager
def _fresh(own: bool) -> Iterator[None]:
    """While inside, torch keeps what it compiles for itself: no other cache answers, and nothing else is saved."""
    if not own:
        yield
        return
    from torch._inductor.utils import fresh_inductor_cache
    from torch.compiler._cache import CacheArtifactManager

    with fresh_inductor_cache(), CacheArtifactManager.with_fresh_cache():
        yield


def _backend(name: str) -> Call:
    """Return a backend of its own that does what torch's of that *name* does: calls of the same one share code."""
    from torch._dynamo import lookup_backend

    compiler = lookup_backend(name)
    return lambda *args, **kwargs: compiler(*args, **kwargs)


class _Counts(NamedTuple):
    """How many *graphs* torch has made in this process; of how many inductor's cache had the code, and of how many it
    had not, and keeps it now. Of any other nothing is kept: it cannot be, or the cache is turned off."""

    graphs: int
    loaded: int
    kept: int

    @classmethod
    def now(cls) -> "_Counts":
        from torch._dynamo.utils import counters

        of = counters["inductor"]
        kept = of["fxgraph_cache_miss"] - of["fxgraph_cache_pickle_error"]
        return cls(counters["stats"]["unique_graphs"], of["fxgraph_cache_hit"], kept)

    def since(self, then: "_Counts") -> "_Counts":
        return _Counts(*(a - b for a, b in zip(self, then, strict=True)))


def _watching(module: nn.Module) -> tuple[tuple[bool, ...], ...]:
    """Return who gathers in each of the attention layers of *module*: not all that are alike are watched."""
    heard: list[Any] = [getattr(part, "heard", None) for part in module.modules()]
    return tuple(tuple(one.watched) for one in heard if one is not None)


def _form(value: Any) -> Any:
    """Return what of an argument makes a graph another one."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, tuple | list):
        return tuple(map(_form, value))
    if isinstance(value, dict):
        return tuple((key, _form(item)) for key, item in value.items())
    return value if isinstance(value, bool | int | float | str) else type(value)


def _guard(message: str) -> str:
    """Return the guards that failed, of torch's message."""
    _, found, guards = message.partition("guard failure(s):")
    return _line(guards) if found else _line(message)


def _line(message: str) -> str:
    return " ".join(message.split())[:400]
