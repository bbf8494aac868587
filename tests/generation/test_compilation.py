"""Compiled, each kind of forward is one graph and no other, and pictures are those of the same graphs without erasure.

With torch's backend `eager`, which traces as inductor does and computes with the kernels of an uncompiled model; what
inductor makes of it is in ``test_inductor.py``.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from pipeline.config.schema import ConceptConfig, ErasureConfig, StepConfig
from pipeline.config.sections.generation import Attention, Compile
from pipeline.erasure.recipe import active_methods, compile_recipe
from pipeline.errors import ConfigError
from pipeline.generation.compilation import Compilation, release
from pipeline.generation.engine import Engine
from pipeline.models.load import load_model
from tests import tiny, tiny_families

BATCH = ("a photo of a cat", "the red car", "two kittens and a tiger", "mountains at night")


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    """The graphs made so far; breaks there are none, because ``fullgraph`` makes errors of them."""
    return counters["stats"]["unique_graphs"]


def engine(
    compile: Compile, *steps: StepConfig, family: str | None = None, size: tuple[int, int] = (32, 32)
) -> tuple[Engine, list[str]]:
    """An engine of a tiny model, with the lines that it says."""
    concept = ConceptConfig(name="cat", aliases=["kitten"], anchor="dog", preserve=["tiger"])
    path = tiny.path() if family is None else tiny_families.path(family)
    config = tiny.config(path, erasure=ErasureConfig(concepts=[concept], recipe=list(steps)))
    config.generation = replace(config.generation, size=list(size), compile=compile)
    model = load_model(config.model, torch.device("cpu"))
    compile_recipe(config, model)
    lines: list[str] = []
    compilation = None
    if compile is not Compile.none:
        compilation = Compilation(model, compile, say=lines.append, backend="eager")
    return Engine(config, model, active_methods(config, model), compilation), lines


def draw(with_engine: Engine, prompts=BATCH, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    samples = [tiny.sample(i, prompt, width=size[0], height=size[1]) for i, prompt in enumerate(prompts)]
    (batch,) = with_engine.generate(samples)
    assert batch.faults == [None] * len(prompts)
    return batch.images


@pytest.mark.slow
@pytest.mark.parametrize("family", [None, "sdxl", "sd3", "flux"])
def test_without_erasure_it_is_one_graph_of_the_denoiser_and_one_of_the_decoder(family: str | None):
    compiled, lines = engine(Compile.full, family=family)
    compiled.warm_up()
    assert graphs() == 2
    images = draw(compiled)
    assert graphs() == 2
    assert np.array_equal(images, draw(engine(Compile.none, family=family)[0]))
    said = ["compiling plain", "compiled plain", "compiling decode", "compiled decode"]
    assert [line.split("-")[0] for line in lines] == said


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method", "modes"), [
    (None, "cease", ["plain", "gathering", "switching"]),
    ("flux", "cease_joint", ["plain", "looking", "gathering", "switching"]),
])  # fmt: skip
def test_each_mode_of_erasure_is_one_graph_and_who_is_not_concerned_keeps_every_bit(family, method, modes):
    steps = StepConfig(method=method, options={"look": 0.3, "gather": 0.6})
    compiled, lines = engine(Compile.full, steps, family=family)
    compiled.warm_up()
    assert graphs() == len(modes) + 1
    found = [line.removeprefix("compiled ").split("-")[0] for line in lines if line.startswith("compiled ")]
    assert sorted(found) == sorted([*modes, "decode"])
    images = draw(compiled)
    assert graphs() == len(modes) + 1, "nothing is compiled while it draws"
    plain, erased = draw(engine(Compile.none, family=family)[0]), draw(engine(Compile.none, steps, family=family)[0])
    assert np.array_equal(images, erased)
    assert {np.array_equal(*pair) for pair in zip(images, plain, strict=True)} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "blocks", "kinds"), [(None, 15, 9), ("flux", 4, 3)])
def test_of_blocks_each_kind_is_one_graph(family: str | None, blocks: int, kinds: int):
    compiled, _ = engine(Compile.blocks, family=family)
    compiled.warm_up()
    assert len(compiled.model.family.blocks) == blocks
    assert graphs() == kinds + 1
    assert np.array_equal(draw(compiled), draw(engine(Compile.none, family=family)[0]))
    assert graphs() == kinds + 1


@pytest.mark.slow
def test_of_blocks_that_are_alike_only_some_are_watched():
    steps = StepConfig(method="cease_joint", options={"look": 0.3, "gather": 0.6})
    compiled, _ = engine(Compile.blocks, steps, family="flux")  # of its two double blocks one is watched
    compiled.warm_up()
    made = graphs()
    assert made == 3 + 4 + 4 + 3 + 1  # plain, looking, gathering, switching and the decoder
    assert np.array_equal(draw(compiled), draw(engine(Compile.none, steps, family="flux")[0]))
    assert graphs() == made


@pytest.mark.slow
def test_a_kind_is_as_many_graphs_whichever_were_compiled_before_it():
    """So what is pinned for it is all of it: torch would have blocks that are alike in two kinds share their code."""
    cease = StepConfig(method="cease", options={"unlisted": False, "context": False})
    made: dict[tuple[str, ...], list[int]] = {}
    for order in (BATCH[1:2], BATCH), (BATCH, BATCH[1:2]):
        compiled, before = engine(Compile.blocks, cease)[0], graphs()
        for prompts in order:
            draw(compiled, prompts)
            made.setdefault(prompts, []).append(graphs() - before)
            before = graphs()
    decoder = 1  # which the batch that comes first compiles
    assert made[BATCH[1:2]] == [9 + decoder, 9]
    assert made[BATCH] == [made[BATCH][1] - decoder, 2 * 9 + decoder]


@pytest.mark.slow
@pytest.mark.parametrize("family", [None, "flux"])
def test_a_decoder_in_tiles_is_a_graph_for_each_shape_of_tile(family: str | None):
    size = (64, 48)  # tiles of 32 pixels at most, which overlap by a quarter
    compiled, plain = (
        engine(Compile.full, family=family, size=size)[0],
        engine(Compile.none, family=family, size=size)[0],
    )
    for one in (compiled, plain):
        one.model.pipe.vae.use_tiling = True
    compiled.warm_up()
    made = graphs()
    assert made == 1 + 4, "the denoiser; whole tiles, those at two sides, and the one in the corner"
    assert np.array_equal(draw(compiled, size=size), draw(plain, size=size))
    assert graphs() == made


@pytest.mark.slow
def test_a_kernel_of_attention_that_is_asked_for_is_in_the_same_graphs():
    drawn = []
    for compile in (Compile.full, Compile.none):
        made, _ = engine(compile)
        made.sampler.attention = Attention.cudnn  # of those that it leaves the choice among, a CPU has some
        made.warm_up()
        drawn.append(draw(made))
    assert graphs() == 2
    assert np.array_equal(*drawn)


def test_a_user_is_not_warned_of_what_torch_finds_in_diffusers(recwarn: pytest.WarningsRecorder):
    engine(Compile.full, family="flux")[0].warm_up()
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.slow
def test_what_would_be_compiled_again_is_an_error_that_names_the_guard():
    compiled, _ = engine(Compile.full)
    compiled.warm_up()
    compiled.model.family.denoiser.train()
    with pytest.raises(RuntimeError, match=r"generation\.compile: .* compiled again: .*training"):
        draw(compiled)


def test_blocks_that_are_not_alike_after_all_are_an_error_that_names_the_guard():
    compiled, _ = engine(Compile.blocks, family="flux")
    first, second = [block for block in compiled.model.family.blocks if "Single" not in type(block).__name__][:2]
    second.train(not first.training)
    with pytest.raises(RuntimeError, match=r"compiled again: .*training"):
        compiled.warm_up()


@pytest.mark.slow
def test_a_size_that_was_not_met_is_compiled_when_it_is_and_is_no_part_of_the_time():
    compiled, lines = engine(Compile.full)
    compiled.warm_up()
    before, said = compiled.compiling_seconds, len(lines)
    samples = [tiny.sample(0, BATCH[0], width=48, height=32)]
    (batch,) = compiled.generate(samples)
    assert graphs() == 4
    assert len(lines) == said + 4
    assert compiled.compiling_seconds > before
    assert batch.device_seconds < compiled.compiling_seconds - before, "tracing takes longer than three steps"


@pytest.mark.slow
def test_what_breaks_the_graph_is_refused_in_a_line():
    compiled, _ = engine(Compile.full)
    module = compiled.model.family.denoiser.conv_out
    module.forward = lambda x, forward=module.forward: (torch._dynamo.graph_break(), forward(x))[1]
    refusal = r"^generation\.compile: plain-\S+ cannot be compiled as one graph \(.*expected none$"
    with pytest.raises(ConfigError, match=refusal):
        compiled.warm_up()


def test_a_step_with_code_of_its_own_in_each_layer_is_refused():
    with pytest.raises(ConfigError, match=r"it listens to attention in each layer, which cannot be compiled"):
        engine(Compile.full, StepConfig(method="cease", options={"attention": 0.5}))


def test_a_model_is_released_for_an_engine_that_compiles_nothing():
    compiled, _ = engine(Compile.blocks)
    release(compiled.model)
    before = graphs()
    draw(Engine(compiled.config, compiled.model, ()))
    assert graphs() == before


@pytest.mark.slow
def test_a_branch_of_its_own_is_one_graph_whoever_is_concerned():
    sld = StepConfig(method="sld", options={"warmup": 1})
    compiled, plain = engine(Compile.full, sld)[0], engine(Compile.none, sld)[0]
    compiled.warm_up()
    for prompts in (BATCH, BATCH[:2], BATCH[1:2]):
        assert np.array_equal(draw(compiled, prompts), draw(plain, prompts))
    assert graphs() == 3
