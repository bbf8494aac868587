"""A forward is one graph a mode, without a break, whatever the batch: counted with a backend of torch.compile that
computes as ever, so that pictures are the uncompiled ones bit for bit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from pipeline.config.schema import StepConfig
from pipeline.generation.engine import Engine
from pipeline.models.compiling import LEAST_TORCH
from tests.erasure import families, steering
from tests.erasure.families import draw, step

pytestmark = pytest.mark.skipif(torch.__version__ < LEAST_TORCH, reason="this torch is not compiled with")
CONCERNED = ["a cat on the beach", "a tree at night", "two cats and a tiger", "a red car"]
OTHERS = [["a red car", "a kitten", "a tree", "a lion"], ["a tree", "a red car", "a house by a road", "a wolf"]]
LISTED = {"unlisted": False, "context": False}  # of a random encoder no other word means anything


@contextmanager
def counted(*modules: nn.Module) -> Iterator[list[torch.fx.GraphModule]]:
    """Compile *modules*; a break of a graph, or a ninth graph of a module, is an error."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, given: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    for module in modules:
        module.compile(fullgraph=True, dynamic=False, backend=backend)
    try:
        yield graphs
    finally:
        for module in modules:
            module._compiled_call_impl = None
        torch._dynamo.reset()


def build(family: str, *steps: StepConfig) -> Engine:
    return steering.engine(*steps) if family == "sd" else families.engine(family, *steps)[0]


CEASE, JOINT = step("cease", **LISTED), step("cease_joint", unlisted=False)
CASES: dict[str, tuple[str, tuple[StepConfig, ...], list[int]]] = {
    # what is compiled, and the graphs after a batch with concerned samples, another, and one without any
    "sd": ("sd", (), [1, 1, 1]),
    "sd, safree": ("sd", (step("safree", up_t=2),), [1, 1, 1]),
    "sd, cease on sld and adavd": ("sd", (step("sld", preset="max"), step("adavd"), CEASE), [3, 3, 4]),
    "sdxl, cease": ("sdxl", (CEASE,), [2, 2, 3]),
    "sd3, cease_joint": ("sd3", (JOINT,), [3, 3, 4]),
    "flux, cease_joint": ("flux", (JOINT,), [3, 3, 4]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_denoiser_is_as_many_graphs_as_there_are_modes(name: str) -> None:
    family, steps, expected = CASES[name]
    engine = build(family, *steps)
    batches = [CONCERNED, *OTHERS]
    plain = [draw(engine, prompts).images for prompts in batches]
    found = []
    with counted(engine.model.family.denoiser) as graphs:
        for prompts, images in zip(batches, plain, strict=True):
            assert np.array_equal(draw(engine, prompts).images, images)
            found.append(len(graphs))
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd", "flux"])
def test_blocks_of_one_shape_share_their_graphs(family: str) -> None:
    engine = build(family, JOINT if family == "flux" else CEASE)
    denoiser = engine.model.family.denoiser
    if family == "flux":
        blocks = [*denoiser.transformer_blocks, *denoiser.single_transformer_blocks]
        # In 3 modes; of the two blocks of text and image one is watched for the place, which counts where that is
        # looked for; the first of the single blocks is given tensors of its own, the next slices of one.
        expected = 2 + 2 + 1 + 3 * 2
    else:
        blocks = [module for module in denoiser.modules() if isinstance(module, BasicTransformerBlock)]
        expected = 2 * 2  # 2 modes at 8x8 and at 4x4
    assert len(blocks) > 3
    plain = draw(engine, CONCERNED).images
    with counted(*blocks) as graphs:
        for _ in range(2):
            assert np.array_equal(draw(engine, CONCERNED).images, plain)
    assert len(graphs) == expected


@pytest.mark.parametrize("attention", [0.0, 1.0])
def test_a_state_tells_what_is_no_graph(attention: float) -> None:
    engine, seen = build("sd", step("cease", attention=attention, **LISTED)), []
    unet, state = engine.model.family.denoiser, engine.sampler.state
    hook = unet.register_forward_pre_hook(lambda *_: seen.append((state.traceable, state.mode.value)))
    draw(engine, CONCERNED)
    hook.remove()
    assert [traceable for traceable, _ in seen] == [attention == 1] * engine.config.generation.steps
    assert [mode for _, mode in seen[:1]] == ["gathering"]
    assert seen[-1][1] == "switching"
    assert state.mode.value == "given"
