"""Nothing in the loop of a batch waits for the device, or carries anything to it; with CEASE nothing before it does.

The loop runs on the meta device, whose tensors have no values: whatever would have the host look at one raises, as an
``.item()``, an ``if`` on a tensor or an index by a mask would stop it for a GPU. Copies from host memory are counted,
and indices by a list, which torch makes a tensor of and carries there. Before the loop what goes by ``to_device`` may:
a GPU has it from pinned memory.
What this cannot see: waits inside of kernels and libraries, and copies that a GPU's allocator makes.
"""

import copy
import traceback
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.config.schema import ModelConfig, StepConfig
from pipeline.erasure.method import Method, Prompts, Sampling, Steering
from pipeline.generation.engine import Engine
from pipeline.generation.sampler import Sampler
from pipeline.generation.text import encode_texts
from pipeline.models.family import Family
from pipeline.models.load import Model, load_model
from pipeline.models.transfer import to_device
from tests import tiny, tiny_families
from tests.erasure import families, steering
from tests.erasure.families import step

META = torch.device("meta")
PROMPTS = ("a cat on the beach", "a tree at night", "two kittens and a tiger", "a red car")


class Watch(TorchDispatchMode):
    """Notes what is carried from host memory to the device while ``preparing`` or ``looping``; what ``to_device``
    carries in the latter alone."""

    def __init__(self) -> None:
        super().__init__()
        self.preparing = self.looping = False
        self.carried: list[str] = []
        self.broadcast: list[torch.Size] = []  # what attention was given

    def note(self, what: str) -> None:
        if self.looping or (self.preparing and all(call.name != "to_device" for call in traceback.extract_stack())):
            self.carried.append(what)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given, new = ([x for x in tree_leaves(value) if isinstance(x, Tensor)] for value in ((args, kwargs), made))
        host = [x for x in given if x.device.type == "cpu"]
        # A number in host memory, beside tensors on the device, goes along with the kernel.
        beside = len(host) < len(given) and "copy_" not in str(func) and all(x.dim() == 0 for x in host)
        if host and any(x.device == META for x in new) and not beside:
            self.note(str(func))
        return made


class Calls(TorchFunctionMode):
    """Notes lists that index what is on the device, in *watch*, and attention to what is broadcast."""

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device == META:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list) for part in index):
                self.watch.note(f"{func.__name__} of a list")
        if func is scaled_dot_product_attention:
            self.watch.broadcast += [part.shape for part in args[:3] if _broadcast(part)]
        return func(*args, **(kwargs or {}))


def _broadcast(tensor: Tensor) -> bool:
    return any(count > 1 and stride == 0 for count, stride in zip(tensor.shape, tensor.stride(), strict=True))


class Marker(Steering):
    """Begins the loop, and counts its steps."""

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch, self.steps = watch, 0

    def begin(self, step: int, timestep: Tensor) -> None:
        self.watch.looping, self.steps = True, self.steps + 1


class Made(Method):
    """Gives a steering that was made before; *watch* sees what others make after it."""

    def __init__(self, made: Steering, watch: Watch | None = None):
        self.made, self.watch = made, watch

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering:
        if self.watch is not None:
            self.watch.preparing = True
        return self.made


def moved(value: Any, family: Family) -> Any:
    """Return *value*, a steering say, with all its tensors on the meta device, and *family* for its own."""
    if isinstance(value, Tensor):
        return value.to(META)
    if isinstance(value, Family):
        return family
    if isinstance(value, Mapping):
        return OrderedDict((key, moved(x, family)) for key, x in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(x, family) for x in value))
    if isinstance(value, list | tuple):
        return type(value)(moved(x, family) for x in value)
    if isinstance(value, Model):
        return replace(value, family=family, device=META)
    module = type(value).__module__
    if not module.startswith("pipeline.") or module.startswith("pipeline.concepts."):  # told apart by identity
        return value
    other = copy.copy(value)
    for name, x in vars(value).items():
        object.__setattr__(other, name, moved(x, family))
    return other


def loop(engine: Engine, methods: tuple[Method, ...], guided: bool, prepares: bool = False) -> Watch:
    """Run the loop of a batch on the meta device, and, where it *prepares*, before it what the methods make for it."""
    model, pairs = engine.model, [(prompt, "") for prompt in PROMPTS]
    prompts = encode_texts(model.family, pairs, methods, guided).batch(pairs, model.device)
    shape, steps, watch = model.family.latent_shape(32, 32), engine.config.generation.steps, Watch()
    sampling = Sampling(shape, steps, 3.5)
    Sampler(model, methods).sample(prompts, range(4), 32, 32, steps, 3.5)  # what methods make once a run
    made = [method.steer(prompts, sampling) for method in methods if method.has("steer")]
    for part in model.pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(META)
    family = type(model.family)(model.pipe, META)
    marker = Marker(watch)
    if prepares:
        acting = [Made(marker, watch), *(moved(method, family) for method in methods)]
    else:
        acting = [Made(marker), *(Made(moved(part, family)) for part in made if part is not None)]
    away = replace(
        prompts,
        positive=prompts.positive.to(META),
        negative=None if prompts.negative is None else prompts.negative.to(META),
    )
    sampler = Sampler(replace(model, family=family, device=META), acting)
    with watch, Calls(watch):
        pixels, _ = sampler.sample(away, range(4), 32, 32, steps, 3.5)
    assert pixels.device == META
    assert pixels.shape == (4, 3, 32, 32)
    assert marker.steps >= steps  # some schedulers ask more than once a step
    return watch


RECIPES: dict[str, tuple[str, tuple[StepConfig, ...]]] = {
    "sd": ("sd", ()),
    "sd, cease": ("sd", (step("cease"),)),
    "sd, adavd": ("sd", (step("adavd", b=0.5, a=10),)),
    "sd, adavd gated": ("sd", (step("adavd", projection="gated", tau=0.2),)),
    "sd, safree": ("sd", (step("safree", up_t=2),)),
    "sd, sld": ("sd", (step("sld", preset="max"),)),
    "sdxl, cease": ("sdxl", (step("cease"),)),
    "sd3, cease_joint": ("sd3", (step("cease_joint", unlisted=False),)),
    "flux, cease_joint": ("flux", (step("cease_joint", unlisted=False),)),
    "schnell": ("schnell", ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_no_step_waits_for_the_device_or_carries_anything_to_it(name: str) -> None:
    family, steps = RECIPES[name]
    engine = steering.engine(*steps) if family == "sd" else families.engine(family, *steps)[0]
    prepares = any(step.method.startswith("cease") for step in steps)  # baselines ask what their texts are like
    watch = loop(engine, engine.methods, "guidance" in engine.model.family.offers, prepares)
    assert watch.carried == []
    assert watch.broadcast == []  # with which kernels of GPUs fail (cuDNN's) or are wrong (the memory-efficient one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheduler",
    ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
     "PNDMScheduler", "FlowMatchEulerDiscreteScheduler"],
)  # fmt: skip
def test_the_steps_of_a_scheduler_do_not_either(scheduler: str) -> None:
    flow = scheduler.startswith("FlowMatch")
    config = tiny.config(tiny_families.path("sd3") if flow else tiny.path())
    config.model.scheduler = scheduler
    config.generation.steps = 4
    engine = Engine(config, load_model(config.model, torch.device("cpu")), ())
    assert loop(engine, (), guided=True).carried == []


class Looking(Steering):
    """Waits for the device."""

    def guide(self, prediction: Any) -> Tensor:
        return prediction.guided if prediction.guided.max() > 0 else -prediction.guided


class Carrying(Steering):
    """Carries numbers to the device at each step."""

    def guide(self, prediction: Any) -> Tensor:
        return prediction.guided * to_device(torch.ones(1, 4, 1, 1), prediction.guided.device)


def test_what_waits_or_carries_is_found() -> None:
    def engine() -> Engine:
        config = tiny.config(tiny.path())
        return Engine(config, load_model(ModelConfig(path=tiny.path()), torch.device("cpu")), ())

    with pytest.raises((RuntimeError, NotImplementedError)):
        loop(engine(), (Made(Looking()),), guided=True)
    with_carrying = engine()
    watch = loop(with_carrying, (Made(Carrying()),), guided=True)
    assert len(watch.carried) == with_carrying.config.generation.steps
