"""What ``generation.compile: auto`` comes to, in a line that says why, and what is refused where nothing compiles."""

from dataclasses import replace

import pytest
import torch
from torch.torch_version import TorchVersion

from pipeline.config import identity, identity_difference, is_settled
from pipeline.config.schema import Config, Device, DType
from pipeline.config.sections.generation import Compile
from pipeline.errors import ConfigError
from pipeline.models.compiling import (
    OFF,
    Hardware,
    Work,
    check_compiler,
    cxx,
    hardware,
    obstacle,
    settle_compile,
    with_compile,
)
from pipeline.models.settle import as_begun, settle, settle_here, stand_in
from tests import tiny, tiny_families

GPU = Hardware("cuda", DType.bfloat16, None)


def auto(model: str, **generation) -> Config:
    config = with_compile(tiny.config(model), Compile.auto)
    return replace(config, generation=replace(config.generation, **generation))


def never() -> int:
    raise AssertionError("what there is to draw decides nothing here")


@pytest.mark.parametrize(
    ("device", "line"),
    [
        (Hardware("cpu", DType.float32, None), "generation.compile: auto is none, as on every CPU"),
        (
            Hardware("cuda", DType.bfloat16, "Triton is not installed"),
            "generation.compile: auto is none, because Triton is not installed",
        ),
    ],
)
def test_where_nothing_compiles_auto_is_none_whatever_there_is_to_draw(device: Hardware, line: str):
    config, said = settle_compile(auto("no/such-model"), device, Work(never))
    assert (config.generation.compile, said) == (Compile.none, line)


def test_an_older_torch_compiles_nothing_whatever_the_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.0+cu128"))
    for kind in ("cpu", "cuda"):
        assert obstacle(kind) == ("torch 2.8.0+cu128 makes no whole graphs of these models, as torch 2.9 and later do")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    assert "torch 2.9.1" not in (obstacle("cpu") or "")


@pytest.mark.parametrize(
    ("family", "chosen", "least"),
    [
        # 25,000 and 1,000 megapixels, in 10 steps of two rows, or of one without guidance, of a quarter of a megapixel
        (None, Compile.full, 4769),
        ("sdxl", Compile.full, 4769),
        ("sd3", Compile.blocks, 191),
        ("flux", Compile.blocks, 382),
    ],
)
def test_on_a_gpu_it_depends_on_the_family_and_on_how_much_there_is_to_draw(family, chosen, least):
    path = tiny.path() if family is None else tiny_families.path(family)
    config = auto(path, steps=10, guidance=5.0, size=[512, 512])
    settled, line = settle_compile(config, GPU, Work(lambda: least))
    assert settled.generation.compile is chosen
    assert (
        line == f"generation.compile: auto is {chosen}, which pays from {least:,} pictures on, and here are {least:,}"
    )
    settled, line = settle_compile(config, GPU, Work(lambda: least - 1))
    assert settled.generation.compile is Compile.none
    short = f"because it pays from {least:,} pictures on, and here are {least - 1:,}"
    assert line == f"generation.compile: auto is none, {short}"


def test_without_guidance_a_picture_is_one_row():
    config = auto(tiny.path(), steps=10, guidance=1.0, size=[512, 512])
    assert "pays from 9,537 pictures on" in settle_compile(config, GPU, Work(lambda: 1))[1]


def test_a_recipe_that_cannot_be_compiled_makes_it_none():
    def check(config: Config) -> None:
        assert config.generation.compile is Compile.full
        raise ConfigError("erasure.recipe[0] listens")

    settled, line = settle_compile(auto(tiny.path()), GPU, Work(lambda: 10**9, check))
    assert settled.generation.compile is Compile.none
    assert line == "generation.compile: auto is none, because erasure.recipe[0] listens"


def test_what_a_config_names_is_kept_and_nothing_is_said():
    config = with_compile(auto(tiny.path()), Compile.blocks)
    assert settle_compile(config, GPU, Work(never)) == (config, "")


def test_it_is_settled_with_the_rest_and_kept_by_a_corpus_that_was_begun():
    config = auto(tiny.path())
    config.cluster.device = Device.cpu
    assert not is_settled(config)
    with pytest.raises(ValueError, match="settle it first"):
        identity(config, "source")
    lines: list[str] = []
    for settled in (settle(config, say=lines.append), settle_here(config, say=lines.append)):
        assert is_settled(settled)
        assert settled.generation.compile is Compile.none
    assert lines == ["generation.compile: auto is none, as on every CPU"] * 2
    assert stand_in(config).generation.compile is Compile.none
    begun = {"generation.compile": "full"}
    assert as_begun(config, begun).generation.compile is Compile.full
    assert as_begun(config, {}).generation.compile is Compile.none, "begun before there was such a setting"


def test_of_a_model_on_the_hub_that_is_not_here_it_is_settled_on_a_cpu():
    config = auto("owner/name")
    config.cluster.device = Device.cpu
    assert settle_here(config).generation.compile is Compile.none


def test_compiled_is_another_corpus_and_uncompiled_is_the_one_of_before():
    config = with_compile(tiny.config(tiny.path()), Compile.none)
    plain, compiled = identity(config, "s"), identity(with_compile(config, Compile.full), "s")
    assert "generation.compile" not in plain.fields
    assert identity_difference(plain.fields, compiled.fields) == ['generation.compile: (absent) -> "full"']
    assert plain.digest != compiled.digest


def test_a_machine_without_a_compiler_is_refused_in_a_line():
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}):  # pytest's own patch would take the setting away afterwards
        assert cxx() is None
        assert obstacle("cpu") == "no C++ compiler is found (g++, or what CXX names)"
        check_compiler(Compile.none, "cpu")
        for compile in (Compile.blocks, Compile.full):
            line = rf"^generation.compile: is {compile}, but no C\+\+ compiler is found"
            with pytest.raises(ConfigError, match=line):
                check_compiler(compile, "cpu")


@pytest.mark.parametrize("name", OFF)
def test_where_torchs_compiler_or_its_cache_is_turned_off_it_is_refused_in_a_line(name, monkeypatch):
    monkeypatch.setenv(name, OFF[name])
    with pytest.raises(ConfigError, match=rf"^generation.compile: is full, but {name}={OFF[name]} is set in the env"):
        check_compiler(Compile.full, "cpu")
    monkeypatch.setenv(name, "1" if OFF[name] == "0" else "0")
    assert obstacle("cpu") is None


def test_of_a_cpu_no_compiler_is_looked_for_before_it_is_asked_for():
    assert hardware("cpu").obstacle is None
    assert not hardware("cpu").compiles
    assert GPU.compiles
