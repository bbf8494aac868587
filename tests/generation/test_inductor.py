"""What inductor has compiled is pinned by whoever was first, loaded by all others, and set aside where it cannot be."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config

from pipeline.config.sections.generation import Compile
from pipeline.corpus import open_store
from pipeline.corpus.compiled import PinnedCode, unnamed
from pipeline.errors import ConfigError
from pipeline.generation.compilation import Compilation, kind_of
from pipeline.models.compiling import obstacle
from tests.interrupted import Interrupted
from tests.lite import lite, needs_inductor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(obstacle("cpu") is not None, reason="no C++ compiler is here"),
]
INPUT = torch.linspace(-1, 1, 16).view(2, 8)


class Layer(nn.Module):
    def __init__(self, wide: int):
        super().__init__()
        self.linear = nn.Linear(8, wide)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).softmax(-1) * x.mean()


def two_layers() -> SimpleNamespace:
    """All of a model that is compiled: a denoiser and a decoder, of a layer each."""
    torch.manual_seed(0)
    return SimpleNamespace(family=SimpleNamespace(denoiser=Layer(8), decoder=Layer(4)))


def pins(folder: Path, *, accept: bool = False) -> PinnedCode:
    return PinnedCode(open_store(str(folder)), "a" * 64, {"torch": "this"}, accept_environment=accept)


def draw(artifacts: PinnedCode, part: str = "denoiser") -> tuple[Tensor, list[str]]:
    """Run a part of a model as the first forward of a process does; return with the lines that are said."""
    torch._dynamo.reset()
    lines: list[str] = []
    model = two_layers()
    compilation = Compilation(model, Compile.full, artifacts, lines.append)  # type: ignore[arg-type]
    with torch.inference_mode(), compilation.sealed():
        result = compilation.run(kind_of("plain", INPUT), lambda: getattr(model.family, part)(INPUT))
        assert torch.equal(compilation.run(kind_of("plain", INPUT), lambda: getattr(model.family, part)(INPUT)), result)
    assert len(lines) in (1, 2)
    return result, lines


def test_the_first_pins_what_the_others_load(tmp_path: Path):
    first, said = draw(pins(tmp_path))
    assert [line.rpartition(":")[0] or line for line in said] == [
        "compiling plain-2x8, which takes a minute or more",
        "compiled plain-2x8",
    ]
    assert pins(tmp_path).find("plain-2x8") is not None
    second, said = draw(pins(tmp_path))
    assert [line.rpartition(":")[0] for line in said] == ["loaded, compiled, plain-2x8"]
    assert torch.equal(first, second)


def test_who_is_late_loads_what_the_first_has_pinned(tmp_path: Path):
    first: list[Tensor] = []
    store = Interrupted(tmp_path, "create", lambda: first.append(draw(pins(tmp_path))[0]))
    late, said = draw(PinnedCode(store, "a" * 64, {"torch": "this"}, accept_environment=False))
    assert [line.split(" plain")[0] for line in said] == ["compiling", "loaded, compiled,"]
    assert torch.equal(late, first[0])
    assert len(list(tmp_path.glob("compiled/*.bin"))) == 1
    assert not unnamed(store)


def test_what_does_not_load_is_refused_and_where_that_is_accepted_made_anew(tmp_path: Path):
    draw(pins(tmp_path / "other"), "decoder")
    code = pins(tmp_path / "other").find("plain-2x8")
    assert code is not None
    assert pins(tmp_path).add("plain-2x8", code)
    with pytest.raises(ConfigError, match=r"plain-2x8\.json: .* torch compiles it anew here, .*--accept-environment"):
        draw(pins(tmp_path))
    result, said = draw(pins(tmp_path, accept=True))
    assert said[-1].startswith("compiled plain-2x8")
    again, said = draw(pins(tmp_path, accept=True))
    assert torch.equal(result, again)
    assert pins(tmp_path).find("plain-2x8") == code, "it stays for those that can use it"


@needs_inductor
def test_where_torch_keeps_nothing_of_what_it_compiles_it_is_refused_with_pinned_code_too(tmp_path: Path):
    with lite():
        draw(pins(tmp_path))
        for folder in (tmp_path, tmp_path / "other"):
            with (
                config.patch(fx_graph_cache=False),
                pytest.raises(ConfigError, match=r"of plain-2x8 torch keeps nothing that other workers could load"),
            ):
                draw(pins(folder))
    assert not (tmp_path / "other").exists()


def test_where_torch_compiles_nothing_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^generation\.compile: torch compiles nothing here, plain-2x8 neither"):
            draw(pins(tmp_path))


@needs_inductor
def test_other_settings_of_torch_are_told_of_where_they_make_pinned_code_another(tmp_path: Path):
    with lite():
        draw(pins(tmp_path))
        with (
            config.patch(max_autotune=True),
            pytest.raises(
                ConfigError,
                match=r"torch compiles it anew here, perhaps .*\(TORCHINDUCTOR_\*\) or the code of Lacuna are others",
            ),
        ):
            draw(pins(tmp_path))
